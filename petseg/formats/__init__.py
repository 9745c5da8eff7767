"""What a mask can be written as: pictures, one a photo, and tables, one a folder of masks."""
