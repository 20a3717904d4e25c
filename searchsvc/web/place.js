/** Where a picture must have been taken: between two parallels and two meridians, in degrees. */

import { byId } from "./dom.js";

const SIDES = ["south", "west", "north", "east"];
const AROUND_KM = 5;
const KM_A_DEGREE = 111.2;
const NORTHMOST = 90;

export class Place {
  constructor(onChange) {
    for (const side of SIDES) {
      this.#input(side).addEventListener("change", () => {
        this.#settle();
        onChange();
      });
    }
  }

  /** A part of the API's `filter`; nothing while a side is missing. */
  get wanted() {
    const box = this.#box;
    return box ? { gps_box: Object.fromEntries(SIDES.map((side, index) => [side, box[index]])) } : {};
  }

  get chips() {
    const box = this.#box;
    return box ? [{ said: `taken in ${inWords(box)}`, remove: () => this.#fill(SIDES.map(() => "")) }] : [];
  }

  openAddress(asked) {
    const sides = (asked.get("box") ?? "").split(",");
    this.#fill(sides.length === SIDES.length ? sides : SIDES.map(() => ""));
  }

  writeAddress(address) {
    if (this.#box) address.set("box", this.#box.join());
  }

  /** A square of a few kilometres about a place; beyond the antimeridian it goes on in the east or west. */
  around({ lat, lon }) {
    const up = AROUND_KM / KM_A_DEGREE;
    const across = Math.min(180, up / Math.max(0.001, Math.cos((lat * Math.PI) / 180)));
    const within = (degrees) => ((((degrees + 180) % 360) + 360) % 360) - 180;
    const box = [Math.max(-NORTHMOST, lat - up), within(lon - across), Math.min(NORTHMOST, lat + up), within(lon + across)];
    this.#fill(box.map((side) => side.toFixed(3)));
  }

  get #box() {
    const said = SIDES.map((side) => this.#input(side).value.trim());
    return said.every(Boolean) ? said.map(Number) : null;
  }

  #fill(values) {
    SIDES.forEach((side, index) => (this.#input(side).value = values[index]));
    this.#settle();
  }

  #settle() {
    const filled = SIDES.filter((side) => this.#input(side).value.trim()).length;
    byId("place-hint").hidden = filled === 0 || filled === SIDES.length;
  }

  #input(side) {
    return byId(`place-${side}`);
  }
}

function inWords([south, west, north, east]) {
  return `${between(south, north, "N", "S")}, ${between(west, east, "E", "W")}`;
}

/** The half of the earth is said once where both ends lie in it. */
function between(low, high, positive, negative) {
  const half = (degrees) => (degrees < 0 ? negative : positive);
  const first = half(low) === half(high) ? "" : `° ${half(low)}`;
  return `${Math.abs(low).toFixed(2)}${first} – ${Math.abs(high).toFixed(2)}° ${half(high)}`;
}
