"""Regions without trained weights, measured against COCO's masks: `python -m training.proposals --photos coco-80-masks.tar`.

regions · baselines    what a proposer is; those that need no eyes
cells · trees          what is known of a picture's cells; regions by merging them
coco · overlap         photos with masks; intersection over union
search                 whether words find photos better by their regions
measures · findings      one proposer over all photos; what search makes of them
intervals · report     how sure the numbers are; JSON and tables

What was found is told in `docs/explanation/segments-without-weights.md`.
"""
