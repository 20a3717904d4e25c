/** The page, wired on one screen. */

import { acceptDrops } from "./drop.js";
import { Failures } from "./failures.js";
import { Ingestion } from "./ingestion.js";
import { QueryPicture } from "./picture.js";
import { Ratings } from "./rating.js";
import { Results } from "./results.js";
import { Search } from "./search.js";
import { Uploads } from "./upload.js";
import { Viewer } from "./viewer.js";

const ratings = new Ratings();
const failures = new Failures();
const picture = new QueryPicture(() => search.pictureChanged());
const viewer = new Viewer(ratings, { onLike: (imageId) => search.like(imageId), onRegion: (file) => search.by(file) });
const search = new Search(picture, new Results(viewer, ratings));
const ingestion = new Ingestion({ onFailures: () => failures.open(), onStatus: (status) => search.offerModels(status.spaces) });
const uploads = new Uploads(() => ingestion.look());

acceptDrops({ onSearch: (file) => picture.take(file), onAdd: (files) => uploads.add(files) });
search.openAddress();
ingestion.look();
