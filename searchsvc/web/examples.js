/** Indexed pictures that a search goes by: the one that is asked by, whole or a part of it, and what is and is not wanted. */

const MOST = 16;
const NAMED = /^([0-9a-f]{64})(?:\.(\d{1,6}))?$/;
const REGION = /^\d+,\d+,\d+,\d+$/;

export class Examples {
  #by = null;
  #region = null;
  #like = [];
  #unlike = [];

  get wanted() {
    return {
      ...this.#by,
      ...(this.#region && { region: this.#region }),
      ...(this.#like.length && { like: this.#like }),
      ...(this.#unlike.length && { unlike: this.#unlike }),
    };
  }

  get chips() {
    const part = this.#region ? "a part of" : this.#by?.segment === undefined ? "" : "a region of";
    const by = this.#by ? [{ said: `like ${part}`.trim(), image_id: this.#by.image_id, remove: () => this.forgetSource() }] : [];
    const chip = (said, list) => (example) => ({ said, image_id: example.image_id, remove: () => drop(list, example) });
    return [...by, ...this.#like.map(chip("more like", this.#like)), ...this.#unlike.map(chip("less like", this.#unlike))];
  }

  openAddress(asked) {
    this.#by = parsed(asked.get("of") ?? "");
    const region = asked.get("region") ?? "";
    this.#region = this.#by && REGION.test(region) ? region.split(",").map(Number) : null;
    this.#like = asked.getAll("like").map(parsed).filter(Boolean).slice(0, MOST);
    this.#unlike = asked.getAll("unlike").map(parsed).filter(Boolean).slice(0, MOST);
  }

  writeAddress(address) {
    if (this.#by) address.set("of", written(this.#by));
    if (this.#region) address.set("region", this.#region.join());
    this.#like.forEach((example) => address.append("like", written(example)));
    this.#unlike.forEach((example) => address.append("unlike", written(example)));
  }

  /** Ask by an indexed picture, a segment of it, or a `region` `[x, y, width, height]` of it in pixels. */
  askBy({ image_id, segment, region = null }) {
    this.#by = exampleOf(image_id, segment);
    this.#region = region;
    this.#like = [];
    this.#unlike = [];
  }

  forgetSource() {
    this.#by = null;
    this.#region = null;
  }

  more(example) {
    this.#add(this.#like, this.#unlike, example);
  }

  less(example) {
    this.#add(this.#unlike, this.#like, example);
  }

  /** The oldest goes where there are too many. */
  #add(list, other, { image_id, segment }) {
    const example = exampleOf(image_id, segment);
    drop(other, example);
    drop(list, example);
    list.push(example);
    if (list.length > MOST) list.shift();
  }
}

const exampleOf = (imageId, segment) => ({ image_id: imageId, ...(segment !== undefined && segment !== null && { segment }) });

const written = ({ image_id: imageId, segment }) => (segment === undefined ? imageId : `${imageId}.${segment}`);

function parsed(text) {
  const [, imageId, segment] = NAMED.exec(text) ?? [];
  return imageId ? exampleOf(imageId, segment === undefined ? undefined : Number(segment)) : null;
}

function drop(list, example) {
  const at = list.findIndex((one) => written(one) === written(example));
  if (at >= 0) list.splice(at, 1);
}
