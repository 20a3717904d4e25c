/** Files dragged over the page: two zones, so that searching with a picture is never mistaken for adding it. */

import { byId } from "./dom.js";

export function acceptDrops({ onSearch, onAdd }) {
  const layer = byId("drop");
  const zones = [...layer.querySelectorAll(".zone")];
  const carriesFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  const hide = () => {
    layer.hidden = true;
    zones.forEach((zone) => zone.classList.remove("over"));
  };

  window.addEventListener("dragenter", (event) => {
    if (carriesFiles(event) && !document.querySelector("dialog[open]")) layer.hidden = false;
  });
  window.addEventListener("dragover", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    zones.forEach((zone) => zone.classList.toggle("over", zone.contains(event.target)));
  });
  window.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) hide();
  });
  window.addEventListener("drop", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    const purpose = zones.find((zone) => zone.contains(event.target))?.dataset.purpose;
    const files = [...event.dataTransfer.files];
    hide();
    if (purpose === "add") onAdd(files);
    else if (purpose === "search") onSearch(files);
  });
  window.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hide();
  });
}
