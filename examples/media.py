"""Log tables, pages, sounds, and videos while a network learns to recognize tones.

python media.py             # writes the run to ./result
tensorboard --logdir .      # shows it
"""

from __future__ import annotations

import argparse

import torch
from torch import nn
from torch.nn import functional as F

import pte_tracking as pte

RATE = 8000  # samples per second
PITCHES = [262, 330, 392, 523]  # Hz


def make_tones(count: int, seconds: float = 0.25) -> tuple[torch.Tensor, torch.Tensor]:
    """Return noisy tones of shape ``(count, samples)``, and the index of the pitch of each."""
    labels = torch.randint(len(PITCHES), (count,))
    times = torch.arange(int(seconds * RATE)) / RATE
    tones = torch.sin(2 * torch.pi * torch.tensor(PITCHES)[labels, None] * times)
    return 0.5 * tones + 0.1 * torch.randn_like(tones), labels


def draw_weights(layer: nn.Linear) -> torch.Tensor:
    """Return the weights of a layer as an image ``(height, width)`` with values from 0 to 1."""
    weights = layer.weight.detach()
    return (weights - weights.min()) / (weights.max() - weights.min())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sinks", nargs="+", default=["json", "tensorboard"], help="destinations of the run")
    args = parser.parse_args()

    torch.manual_seed(0)
    inputs, labels = make_tones(512)
    spectra = torch.fft.rfft(inputs).abs()[:, :160]
    first = nn.Linear(160, 32)
    model = nn.Sequential(first, nn.ReLU(), nn.Linear(32, len(PITCHES)))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)

    with pte.Run("result", sinks=args.sinks, params={"lr": 0.001}, close_timeout=60) as run:
        frames = []
        for step in range(1, 41):
            optimizer.zero_grad()
            outputs = model(spectra)
            loss = F.cross_entropy(outputs, labels)
            loss.backward()
            optimizer.step()
            run.log_metrics({"train/loss": loss}, step)
            frames.append(draw_weights(first))
            if step % 20 == 0:
                probabilities = outputs.detach().softmax(1)
                hardest = probabilities[torch.arange(len(labels)), labels].argsort()[:5]
                rows = [
                    {
                        "pitch": PITCHES[labels[index]],
                        "predicted": PITCHES[outputs[index].argmax()],
                        **{f"p({pitch} Hz)": float(p) for pitch, p in zip(PITCHES, probabilities[index], strict=True)},
                    }
                    for index in hardest.tolist()
                ]
                run.log_table("hardest tones", rows, step, caption=f"The five hardest tones after step {step}")
                run.log_audio("hardest tone", inputs[hardest[0]], step, sample_rate=RATE, caption="The hardest tone")
                run.log_video("weights", torch.stack(frames), step, fps=10, caption="Weights of the first layer")
        run.log_html("report", f"<h1>Tones</h1><p>Loss: <b>{float(loss.detach()):.4f}</b></p>", step)
        run.log_text("notes", "# Tones\n\nThe network learns **four** pitches.", step)
    print(f"final loss {float(loss.detach()):.4f}, files in {run.directory / 'media'}")


if __name__ == "__main__":
    main()
