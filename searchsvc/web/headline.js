/** What was asked, in a few words, and what to say where nothing answers it. */

export function headline({ text, pictures, image_id: imageId, like }) {
  const yours = pictures.length > 1 ? `your ${pictures.length} pictures` : "your picture";
  const stored = (imageId ? 1 : 0) + (like?.length ?? 0);
  const by = pictures.length ? yours : stored ? `${stored === 1 ? "one" : "some"} of your pictures` : "";
  if (text && by) return `“${text}”, like ${by}`;
  if (text) return `“${text}”`;
  if (pictures.length) return `Similar to ${yours}`;
  return "More like this";
}

export function nothingFor({ scope, filter }) {
  if (filter) return "No picture that passes the filters answers that. Take one away, or search without them.";
  if (scope === "segments") return "No region of a picture answers that. Regions exist only where a segmentation model is loaded.";
  return "No picture answers that yet. New pictures can be found once they are indexed: the bar below tells how far it is.";
}
