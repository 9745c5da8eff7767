"use strict";
document.documentElement.classList.add("js");
for (const pair of document.querySelectorAll(".pair")) {
  const slider = pair.querySelector("input");
  if (slider) slider.addEventListener("input", () => pair.style.setProperty("--cut", `${slider.value}%`));
}
