"""A decoding mode of one's own beside two that ship, without a network: `python examples/own_mode.py`."""

from roadside.datasets.drivelog import DriveLog, bundled_log_path
from roadside.datasets.jpeg import encode_jpeg
from roadside.models.answering import cloud_answerer, edge_answerer
from roadside.models.decoding import Ask, Generation, Limits, Spoke, UploadPrompt, UploadTokens, Wait, to_the_end
from roadside.models.local_cloud import LocalCloud
from roadside.models.modes import ce, full, standalone
from roadside.models.modes.sharing import BY_DEFAULT
from roadside.models.questions import Question
from roadside.models.together import decode_together


def decode(edge, prompt, limits, sharing=BY_DEFAULT):
    """The edge speaks while it is sure; where it first is not, the cloud gets question and words, and says the rest."""
    generation, session = Generation(), edge.session(limits.sampling)
    said = session.speak(session.read(prompt.inputs()), limits.thresholds)
    while said.sure:
        generation.add(said.token, said.speaker, said.confidence)
        if limits.reached(generation):
            return generation
        yield Spoke((said.token,))
        said = session.speak(session.read(edge.embed(said.token)), limits.thresholds)
    yield UploadPrompt(prompt.positions)
    if generation.tokens:
        yield UploadTokens(prompt.positions, tuple(generation.tokens))
    yield Ask(prompt.positions + len(generation.tokens), generate=limits.max_tokens - len(generation.tokens))
    while True:
        reply = yield Wait()
        if reply is None:  # the cloud is silent and will stay so: the edge says its unsure word, and goes on
            generation.add(said.token, said.speaker, said.confidence)
            if not limits.reached(generation):
                yield from standalone.go_on(edge, session, generation, limits)
            return generation
        for token, confidence in zip(reply.tokens, reply.confidences, strict=True):
            generation.add(token, "full", confidence)
            if limits.reached(generation):
                return generation


if __name__ == "__main__":
    edge, cloud = edge_answerer(None), cloud_answerer(None)
    modes = {"hand-over": decode, "standalone": standalone.decode, "ce": ce.decode}
    clouds_words, same, words = dict.fromkeys(modes, 0), dict.fromkeys(modes, 0), 0
    end = edge.reader.end_token
    limits = Limits(max_tokens=32, end_token=end, thresholds=edge.partition.exits.thresholds)
    for clip in DriveLog.open(bundled_log_path()).clips[:4]:
        frame = encode_jpeg(clip.frame(5.0), quality=85)
        prompt = edge.encode(Question("what is the car doing and why ?", (frame,), clip.telemetry(5.0)))
        whole = to_the_end(full.decode(cloud.whole, prompt, limits)).tokens
        words += len(whole)
        for name, mode in modes.items():
            rest = LocalCloud(cloud.whole, end_token=end, prompt=prompt)
            said = decode_together(mode(edge.partition, prompt, limits), rest).result
            clouds_words[name] += said.made_by.count("full")
            same[name] += sum(a == b for a, b in zip(said.tokens, whole, strict=False))
    for name in modes:
        print(f"{name}: {same[name] / words:.0%} as the whole model's, {clouds_words[name]} tokens by the cloud")
