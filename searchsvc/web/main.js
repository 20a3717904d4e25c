/** The page, wired on one screen. */

import { Cutter } from "./cut.js";
import { notify } from "./dom.js";
import { acceptDrops } from "./drop.js";
import { Failures } from "./failures.js";
import { Ingestion } from "./ingestion.js";
import { Ratings } from "./rating.js";
import { Results } from "./results.js";
import { Search } from "./search.js";
import { Status } from "./status.js";
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
const ingestion = new Ingestion({ onFailures: () => failures.open() });
const uploads = new Uploads(() => status.expect());
const status = new Status({ onStatus: tell, onAway: (problem) => ingestion.showAway(problem) });

function tell(now) {
  ingestion.show(now);
  viewer.know(now);
  notify(now.notice);
  search.offerModels(now.spaces);
  search.resume();
  uploads.look();
}

acceptDrops({ onSearch: (files) => search.take(files), onAdd: (files) => uploads.add(files) });
search.openAddress();
status.follow();
addEventListener("online", () => search.resume());
