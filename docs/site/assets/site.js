// The bar of each block of code is a landmark without a name: many of them hinder those that read by landmarks.
"use strict";
(() => {
  const name = () => {
    for (const bar of document.querySelectorAll("nav.md-code__nav:not([role])")) bar.setAttribute("role", "presentation");
  };
  new MutationObserver(name).observe(document.body, { childList: true, subtree: true });
  name();
})();
