"""The Phoenix Channels protocol as pure functions and state: no I/O, no clock, no tasks.

Inputs are method calls, outputs are lists of effects. Everything that is only echoed (refs, topics,
payloads) stays encoded JSON from the wire to the wire.
"""
