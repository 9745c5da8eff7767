"""Oxford-IIIT Pet, and data laid out like it, as batches to train on."""
