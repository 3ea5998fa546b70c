"""Rounds of learners over many devices: the careful part at the two ends of an engine that is not ours, Flower.

1. A device's SuperNode and the server's SuperLink are Flower's, in an environment of their own (extra `fleet`).
   board/client_app.py, server/server_app.py and server/strategies.py are all that imports flwr.
2. Whoever runs the server can run code in a SuperNode, for Flower ships the app. So its user sees no example. It lays
   an order on a **desk** (desk.py), a directory, and finds the answer there. It knows no model.
3. `edge-far fleet work` (board/worker.py), as the device's own user, without a network, takes the order: same bundle or
   refused; the daemon's lock, conditions, store, budget and trainer. It lays learners and figures down, or one word.
4. What travels is the learners' change (exchange.py), in float32 or in 8 bits with error feedback (traffic.py).
   Names, shapes, finiteness and a norm are checked on both sides; a refusal is one word of terms.py.
5. The server averages by examples, in float64, then rounds (average.py); FedProx, FedAdam and the trimmed mean are
   Flower's. A finished round is a directory that appears by one rename (server/rounds.py): a restart goes on behind it.
6. After the last round the learners are **offered** to every device: its daemon's next cycle takes them in the place
   of training, and its own gate decides on its own held-out examples. Nobody else can release anything.

Read terms.py, then board/worker.py for the device and server/server_app.py for the server. Nothing here imports torch;
the daemon and the device never import this.
"""
