/** Why a match was found: what it was compared with, and what each part of the question says of it. */

import { make } from "./dom.js";

const PARTS = {
  text: "Words",
  negative_text: "Without",
  image_id: "Picture",
  file: "Your picture",
  region: "Part of a picture",
  like: "More like",
  unlike: "Less like",
  feedback: "Earlier ratings",
};
const SPOKEN = ["text", "negative_text"];

export class Why {
  #open = false;

  /** A disclosure that stays open from match to match; null where there is no explanation. */
  draw({ explanation, segment }) {
    if (!explanation) return null;
    const details = make("details", { class: "why", open: this.#open },
      make("summary", { "data-keep": "why" }, "Why?"),
      make("dl", {}, rowsOf(explanation, segment).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)])),
      termsOf(explanation.terms),
      make("p", { class: "fine" }, "Vector ", make("code", {}, explanation.point_id), " of ", make("code", {}, explanation.collection)),
    );
    details.addEventListener("toggle", () => (this.#open = details.open));
    return details;
  }
}

function rowsOf({ whole, region, region_n: n }, segment) {
  const label = segment && segment.n === n ? `Region “${segment.label}”` : "Best region";
  return [...(whole === null ? [] : [["Whole picture", whole.toFixed(4)]]), ...(region === null ? [] : [[label, region.toFixed(4)]])];
}

function termsOf(terms) {
  const head = ["Asked by", "Weight", "Similarity"].map((name) => make("th", { scope: "col" }, name));
  const rows = terms.map(({ of, ref, weight, similarity }) => make("tr", {},
    make("th", { scope: "row" }, PARTS[of], SPOKEN.includes(of) ? ` “${ref}”` : ""),
    make("td", {}, weight.toFixed(2)),
    make("td", {}, similarity.toFixed(4)),
  ));
  return make("table", {}, make("thead", {}, make("tr", {}, head)), make("tbody", {}, rows));
}
