"""What travels: typed, versioned messages. The type is the schema, and decoding is the validation.

Every message on the wire is one MessagePack map, an `Envelope`, whose `body` is one of the structs below, told
apart by its `type` key. Any MessagePack program can read it (examples/subscribe.py does).

No field is untyped and none is unbounded: an untyped field would let a small message decode into an enormous one.
Times are relative (milliseconds that are left) or on the sender's own clock and only ever echoed back to it,
so that clocks which disagree cannot make an answer look fresh or late.
"""

from __future__ import annotations

from typing import Annotated, Generic, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from .places import Place
from .tensors import TensorPayload

SCHEMA_VERSION = 1
# Of which one node can tell how well and how fast it answers them.
MOST_KINDS = 32

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")]
# On one line: labels end up in logs, tables and on terminals as they are.
Label = Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]{0,96}\Z")]
Sentence = Annotated[str, Meta(max_length=2000)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
# Finite, and so small that sums and products of what somebody claims stay finite too.
Milliseconds = Annotated[float, Meta(ge=0, le=1e9)]
Joules = Annotated[float, Meta(ge=0, le=1e9)]
Watts = Annotated[float, Meta(ge=0, le=1e6)]
Share = Annotated[float, Meta(ge=0, le=1)]
# Up to the year 2286: every calendar has it.
UnixSeconds = Annotated[float, Meta(ge=0, le=1e10)]
Jpeg = Annotated[bytes, Meta(min_length=4, max_length=4 * 1024 * 1024)]
# Packed; the largest of ours take a tenth of it, and every broker lets it pass.
WeightsArchive = Annotated[bytes, Meta(min_length=4, max_length=512 * 1024)]

Role = Literal["vehicle", "edge", "cloud"]
TaskState = Literal["result", "fallback", "expired", "rejected"]
EnergyMethod = Literal["measured", "modelled"]
NackReason = Literal["missing", "unknown-session", "conflict", "too-large", "too-late", "no-room", "unusable"]
TokenId = Annotated[int, Meta(ge=0, le=2**24)]
# Of one axis; a model that counts positions on several (M-RoPE) has one tuple for each.
PositionIds = Annotated[tuple[Annotated[int, Meta(ge=0, le=2**24)], ...], Meta(max_length=4096)]


class Part(Struct, frozen=True, forbid_unknown_fields=True):
    """Base of the structs that stand inside a message."""


class Message(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type"):
    """Base of what an envelope carries; its class name is the `type` on the wire."""


class Load(Part, frozen=True):
    """How busy a node is, as it sees itself at the moment of sending.

    wait_ms: how long a task that arrived now would wait before its inference starts: in what a node says to a vehicle,
        that vehicle's next; in its reports to all, one of a vehicle that has none there.
    service_ms: by place and task kind, recent mean time from the start of inference to the answer.
    """

    queued: Count
    running: Count
    slots: Count
    wait_ms: Milliseconds
    service_ms: Annotated[
        dict[Place, Annotated[dict[Label, Milliseconds], Meta(max_length=MOST_KINDS)]], Meta(max_length=4)
    ]


class NodeState(Message, frozen=True, tag="NodeState"):
    """Retained self-portrait of a node; with `alive=False` also its last will.

    places: where a task sent to this node may be realised; an edge offers `edge+cloud` while it has a cloud to ask.
    quality: success rate by place and task kind, measured on held-out scenes with this node's model.
    slot_power_w: electric power of one busy inference slot, for the energy model.
    grants_leases: a cloud that takes edges' contexts and says single tokens for them; others are not to be asked.
    """

    node: Name
    role: Role
    alive: bool
    places: Annotated[tuple[Place, ...], Meta(max_length=4)] = ()
    model: Label = ""
    model_hash: Label = ""
    load: Load | None = None
    quality: Annotated[dict[Place, Annotated[dict[Label, Share], Meta(max_length=MOST_KINDS)]], Meta(max_length=4)] = (
        msgspec.field(default_factory=dict)
    )
    slot_power_w: Watts = 0.0
    grants_leases: bool = False
    uptime_s: Annotated[float, Meta(ge=0, le=1e10)] = 0.0
    event_loop_lag_ms: Milliseconds = 0.0
    memory_bytes: Count = 0
    counters: Annotated[dict[Label, Count], Meta(max_length=128)] = msgspec.field(default_factory=dict)


class Task(Message, frozen=True, tag="Task"):
    """One question about one moment of a drive.

    frames: JPEG or PNG images, oldest first.
    telemetry: COVESA VSS names (`Vehicle.Speed` in km/h, ...) to values.
    deadline_ms: the whole time the task has; remaining_ms: what was left of it when this attempt was sent.
    exit_thresholds: confidence at which each early exit may speak, shallowest first; empty: the node's own.
    """

    task_id: Name
    attempt: Annotated[int, Meta(ge=1, le=1000)]
    kind: Name
    prompt: Sentence
    frames: Annotated[tuple[Jpeg, ...], Meta(min_length=1, max_length=8)]
    telemetry: Annotated[dict[Label, float], Meta(max_length=64)]
    deadline_ms: Annotated[float, Meta(gt=0, le=600_000)]
    remaining_ms: Annotated[float, Meta(gt=0, le=600_000)]
    qos_floor: Annotated[float, Meta(ge=0, le=1)]
    place: Place
    max_tokens: Annotated[int, Meta(ge=1, le=4096)] = 32
    exit_thresholds: Annotated[tuple[float, ...], Meta(max_length=16)] = ()


class Accepted(Message, frozen=True, tag="Accepted"):
    """The node has the task and will answer it; resending stops."""

    task_id: Name
    attempt: Count
    load: Load


class Rejected(Message, frozen=True, tag="Rejected"):
    """The node refuses this attempt, or takes back that it had taken it; the task may be tried elsewhere meanwhile.

    retry_after_ms: from when on it makes sense to ask this node again.
    """

    task_id: Name
    attempt: Count
    reason: Label
    retry_after_ms: Milliseconds
    load: Load


class Timing(Part, frozen=True):
    """Where an answer's time went on the node, in milliseconds.

    inference_ms: the node's own computing; context_ms: waiting for another tier's part of the answer.
    """

    queue_ms: Milliseconds = 0.0
    inference_ms: Milliseconds = 0.0
    context_ms: Milliseconds = 0.0


class ContextUse(Part, frozen=True):
    """What an answer that edge and cloud made together cost between them.

    positions: that went up, as hidden states or in another form; once each, however often they were sent, but again
        where the mode reads them anew.
    payload_bytes_up: of those positions, without headers: hidden_size times two bytes each in float16; bytes_up: all
        that was sent to the cloud for this answer, with headers, requests and repetitions.
    cloud_requests: questions that the cloud was asked. resent_positions: sent again after a Nack.
    ended_alone: the cloud fell silent, and the edge said the rest by itself.
    """

    cloud: Name
    positions: Count
    hidden_size: Count
    payload_bytes_up: Count
    bytes_up: Count
    cloud_requests: Count
    resent_positions: Count = 0
    ended_alone: bool = False


class Result(Message, frozen=True, tag="Result"):
    """An answer. `final=False` marks a provisional one, which a final one may still replace.

    made_by: for each token who made it: "exit1", "exit2", ... or "full"; empty where no model spoke.
    place: where the answer was realised, which may differ from where it was asked for.
    context: of an answer at `edge+cloud`, final ones only.
    is_whole: False: only the first words of an answer, of which more will come; no answer by itself.
    """

    task_id: Name
    attempt: Count
    final: bool
    text: Sentence
    place: Place
    mode: Label
    model: Label
    made_by: Annotated[tuple[Label, ...], Meta(max_length=4096)]
    confidence: Share
    timing: Timing
    energy_j: Joules
    energy_method: EnergyMethod
    load: Load
    context: ContextUse | None = None
    is_whole: bool = True


class Candidate(Part, frozen=True):
    """What the policy saw and said of one place where the task could run.

    masked: why the place was not allowed; empty where it was.
    """

    node: Name
    place: Place
    score: float
    latency_ms: float
    energy_j: float
    quality: float
    masked: Label
    features: Annotated[tuple[float, ...], Meta(max_length=64)]


class Decision(Part, frozen=True):
    """Why a task went where it went. propensity: probability with which the policy took this choice.

    exit_threshold: confidence at which an edge's early exits may speak; None: the node's or the vehicle's own.
    frame_scale: of the picture's sides before it is sent.
    weights: whose weights the policy had, and which version of them ("learner-1 v3"), also where the guard
        overruled it; empty where they came with the program, and where it has none.
    """

    policy: Label
    chosen: Count
    propensity: float
    reason: Label
    candidates: Annotated[tuple[Candidate, ...], Meta(max_length=512)]
    exit_threshold: Annotated[float, Meta(ge=0, le=10)] | None = None
    frame_scale: Annotated[float, Meta(gt=0, le=1)] = 1.0
    weights: Label = ""


class Truth(Part, frozen=True):
    """The driving log's own words for the task's moment, and whether the visible answer says the same.

    The two verdicts are None where the task's kind does not ask for that part.
    """

    action: Sentence
    justification: Sentence
    action_correct: bool | None
    justification_correct: bool | None


class Outcome(Message, frozen=True, tag="Outcome"):
    """The one terminal state of a task, told by the vehicle that created it.

    place: the place that made the visible answer; requested: the place that the policy chose first.
    latency_ms: creation to final visible answer, on the vehicle's monotonic clock; first_answer_ms: to the first.
    network_ms: round trip less what the node reports; queue, inference and context as in `Timing`.
    decision: None where the vehicle was down at the deadline and only its journal remembers the task.
    """

    task_id: Name
    kind: Name
    state: TaskState
    reason: Label
    text: Sentence
    created_at_s: UnixSeconds
    deadline_ms: Milliseconds
    requested: Place
    place: Place
    node: Name
    mode: Label
    accepted: bool
    attempts: Count
    latency_ms: Milliseconds
    first_answer_ms: Milliseconds
    network_ms: Milliseconds
    timing: Timing
    energy_j: Joules
    energy_method: EnergyMethod
    clip: Label
    moment_s: float
    decision: Decision | None
    made_by: Annotated[tuple[Label, ...], Meta(max_length=4096)] = ()
    truth: Truth | None = None
    context: ContextUse | None = None


class Frame(Message, frozen=True, tag="Frame"):
    """What a vehicle saw, sampled for people and recorders; never an input of a decision.

    task_id: of the task that was made of this scene, where there is one.
    """

    clip: Label
    moment_s: float
    jpeg: Jpeg
    telemetry: Annotated[dict[Label, float], Meta(max_length=64)]
    task_id: Name | None = None


class PolicyWeights(Message, frozen=True, tag="PolicyWeights"):
    """What a learner has found better than what was served before, or has gone back to.

    policy: whose weights they are, by its registered name. version: grows with everything that a learner publishes.
    feature_schema: of the features that they were trained on (policy/features.py).
    weights: an .npz archive of plain arrays, as policy/weights.py writes it.
    trained_tasks: how many tasks' outcomes went into them. note: for people.
    """

    policy: Label
    version: Count
    feature_schema: Label
    weights: WeightsArchive
    trained_tasks: Count
    note: Sentence = ""


class LeaseRequest(Message, frozen=True, tag="LeaseRequest"):
    """An edge introduces itself to a cloud. The two must hold the same model, cut at the same layer.

    first_exit_layer: the hidden states that will come are the residual stream after so many layers.
    """

    model_hash: Label
    first_exit_layer: Count
    hidden_size: Count


class Lease(Message, frozen=True, tag="Lease"):
    """The cloud's consent: sessions of this edge may be called `{lease}.{number}`, each number used once.

    lease: random and made by the cloud, void when either process ends; nobody else's session can be guessed from it.
    session_ttl_ms: a session that is silent for so long is forgotten.
    takes_prompts: the cloud can also begin with a question and token ids, since it holds the layers before the cut.
    """

    lease: Name
    session_ttl_ms: Milliseconds
    takes_prompts: bool = False


class LeaseRefused(Message, frozen=True, tag="LeaseRefused"):
    """The cloud will not collaborate with this edge, and why."""

    reason: Label


class ContextChunk(Message, frozen=True, tag="ContextChunk"):
    """Hidden states of consecutive positions, each sent once and without waiting (CE-CoLLM, section III-B).

    rollback: how often the session's sequence has been cut back so far; chunks of an earlier count are stale.
    hidden: [positions, hidden_size], the first row being that of `position`.
    kept: how many positions the latest roll-back left standing. Every chunk says it, since the first one after a
        roll-back may be lost, and what it should have cut off must not pass for what it brought.
    row_scales, channel_scales: float32 [positions] and [hidden_size], of `hidden` in int8; a value is the product of
        the three. The channels' are the same for a whole session and come with its first chunk, and with all that is
        sent again.
    position_ids: of these positions on each axis, where they are not just their numbers in the sequence.
    """

    session: Name
    rollback: Count
    position: Count
    hidden: TensorPayload
    kept: Count = 0
    row_scales: TensorPayload | None = None
    channel_scales: TensorPayload | None = None
    position_ids: Annotated[tuple[PositionIds, ...], Meta(max_length=4)] = ()


class ContextTokens(Message, frozen=True, tag="ContextTokens"):
    """The tokens at consecutive positions from `position` on, whose hidden states the cloud computes itself.

    They can only follow a PromptContext, and other tokens. rollback, kept: as in ContextChunk.
    """

    session: Name
    rollback: Count
    position: Count
    tokens: Annotated[tuple[TokenId, ...], Meta(min_length=1, max_length=4096)]
    kept: Count = 0


class PromptContext(Message, frozen=True, tag="PromptContext"):
    """The question of a session instead of its hidden states: the cloud encodes it, and it has `positions` positions.

    prompt, frames, telemetry: as in Task. rollback, kept: as in ContextChunk.
    """

    session: Name
    rollback: Count
    positions: Annotated[int, Meta(ge=1, le=2**20)]
    prompt: Sentence
    frames: Annotated[tuple[Jpeg, ...], Meta(min_length=1, max_length=8)]
    telemetry: Annotated[dict[Label, float], Meta(max_length=64)]
    kept: Count = 0


class CloseContext(Message, frozen=True, tag="CloseContext"):
    """The answer is complete; the cloud may forget the session at once."""

    session: Name


class InferRequest(Message, frozen=True, tag="InferRequest"):
    """Ask for the whole model's tokens. Sent again it is answered again, not computed again.

    up_to: which token follows the first so many positions?
    claimed: (c1, ..., ck): the edge believes that ci follows the first up_to - k + i positions. The answer has the
        tokens there, up to and including the first that differs.
    generate: when above 0: go on alone for up to so many tokens; the answer comes in pieces.
    temperature, seed: sample with this noise (models/sampling.py); temperature 0: the most likely token.

    Of one session the newest request counts: an older one whose last token is claimed by it is not answered.
    """

    session: Name
    rollback: Count
    up_to: Annotated[int, Meta(ge=1, le=2**20)]
    remaining_ms: Annotated[float, Meta(gt=0, le=600_000)]
    claimed: Annotated[tuple[TokenId, ...], Meta(max_length=4096)] = ()
    generate: Annotated[int, Meta(ge=0, le=4096)] = 0
    temperature: Annotated[float, Meta(ge=0, le=100)] = 0.0
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0


class TokenReply(Message, frozen=True, tag="TokenReply"):
    """The whole model's tokens for a request.

    up_to: the request's; of a generating one, how many positions stand before this piece's first token.
    tokens: the one asked for; or the claimed ones as far as they are right, and the right one where one is not; or a
        piece of those generated.
    n_accepted: how many claims were right, from the first on.
    confidences: each token's softmax probability.
    queue_ms, compute_ms: what the newest of them took. energy_j: spent since the last reply to this session.
    """

    session: Name
    rollback: Count
    up_to: Count
    tokens: Annotated[tuple[TokenId, ...], Meta(min_length=1, max_length=4096)]
    n_accepted: Count
    confidences: Annotated[tuple[Share, ...], Meta(min_length=1, max_length=4096)]
    queue_ms: Milliseconds
    compute_ms: Milliseconds
    energy_j: Joules


class Nack(Message, frozen=True, tag="Nack"):
    """The cloud cannot answer a request as things are.

    missing: positions [first, end) have not arrived and are to be sent again.
    unknown-session: forgotten (time, memory, restart) or never known; all of it is to be sent again in a new session.
    conflict: a position came twice with different content, or a prompt has another length than was said;
    too-large: more than the cloud keeps for one session; no-room: its memory is taken by answers under way;
    unusable: token ids, or a prompt, that it cannot run where they stand;
    too-late: the request's time was over. These end the collaboration on this answer.
    """

    session: Name
    rollback: Count
    reason: NackReason
    first: Count = 0
    end: Count = 0


Body = TypeVar("Body", bound=Message)


class Envelope(Struct, Generic[Body], frozen=True, forbid_unknown_fields=True):
    """What stands around every message.

    boot_id: one life of the sender; sequence: counts its messages from 1, so a receiver can tell repeats;
        a last will has 0, as it is written before the messages that it follows.
    sent_at_s: the sender's wall clock, Unix seconds; for people, never for decisions.
    """

    version: int
    sender: Name
    boot_id: Name
    sequence: Count
    sent_at_s: UnixSeconds
    body: Body
