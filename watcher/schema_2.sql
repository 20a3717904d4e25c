-- Which fields the payload of an image's points has (core.points.LAYOUT); 1: those of the first release.

ALTER TABLE images ADD COLUMN layout INTEGER NOT NULL DEFAULT 1;
