/** The page, wired on one screen. */

import { Cutter } from "./cut.js";
import { acceptDrops } from "./drop.js";
import { Failures } from "./failures.js";
import { Ingestion } from "./ingestion.js";
import { Ratings } from "./rating.js";
import { Results } from "./results.js";
import { Search } from "./search.js";
import { Uploads } from "./upload.js";
import { Viewer } from "./viewer.js";

const ratings = new Ratings();
const failures = new Failures();
const cutter = new Cutter();
const wishes = {
  more: (match) => search.more(match),
  less: (match) => search.less(match),
  by: (source) => search.by(source),
  around: (place) => search.around(place),
};
const viewer = new Viewer(ratings, cutter, wishes);
const search = new Search(cutter, new Results(viewer, ratings, wishes));
const ingestion = new Ingestion({ onFailures: () => failures.open(), onStatus: (status) => search.offerModels(status.spaces) });
const uploads = new Uploads(() => ingestion.look());

acceptDrops({ onSearch: (files) => search.take(files), onAdd: (files) => uploads.add(files) });
search.openAddress();
ingestion.look();
