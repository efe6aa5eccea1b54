"""A served model under load, through HTTP: goodput.py URL MODEL idle | rates R1,R2,… SECONDS | closed REQUESTS IN OUT AT_ONCE |
cancel REQUESTS METRICS_URL | mixed SECONDS AT_ONCE METRICS_URL.

`idle`: time to the first token of a 1k prompt on a server that does nothing else, and of tokens after it.
`rates`: Poisson arrivals, prompt and answer lengths as in ShareGPT, timed from when a request should be sent. Goodput is the
highest rate with p99 of the first token under 500 ms and p99 between tokens under 25 ms.
`closed`: requests of random token ids that answer with so many tokens, as many at once; tokens answered in a second of all.
`cancel`: streams that are left after their first tokens; then no block may be held. `mixed`: prompts and answers of all lengths with
all kinds of sampling, every tenth left half-way, every twentieth one that must be refused; how full the GPU's memory was meanwhile.
"""
import asyncio, json, random, sys, time
import aiohttp

# Percentiles of first turns and first answers, in tokens: 5, 10, 25, 50, 75, 90, 95, 99; each at least 4, a prompt at most 1024.
AT = [0, 5, 10, 25, 50, 75, 90, 95, 99, 100]
PROMPT = [4, 7, 8, 14, 30, 100, 342, 579, 917, 1024]
ANSWER = [4, 25, 48, 130, 266, 409, 612, 760, 920, 1024]


def draw(rng, table):
    p = rng.random() * 100
    i = max(j for j in range(len(AT) - 1) if AT[j] <= p)
    return round(table[i] + (table[i + 1] - table[i]) * (p - AT[i]) / (AT[i + 1] - AT[i]))


async def ask(session, url, model, prompt, answer, due):
    """Seconds to the first token, gaps between the others, tokens."""
    body = {"model": model, "prompt": prompt, "max_tokens": answer, "stream": True, "temperature": 0, "ignore_eos": True,
            "min_tokens": answer}
    first, last, gaps, events = None, None, [], 0
    async with session.post(url + "/v1/completions", json=body) as reply:
        if reply.status != 200:
            raise RuntimeError(f"{reply.status}: {(await reply.text())[:300]}")
        async for line in reply.content:
            if line.startswith(b"data: {"):
                now = time.perf_counter()
                events += 1
                if first is None:
                    first = now - due
                else:
                    gaps.append(now - last)
                last = now
    return first, gaps, events, time.perf_counter() - due


def text(rng, n):
    return "".join(rng.choice("abcdefghij klmno") for _ in range(n))


def percentile(values, p):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * p / 100))] if values else float("nan")


async def idle(session, url, model):
    rng = random.Random(1)
    firsts, gaps = [], []
    for i in range(13):
        first, g, _, _ = await ask(session, url, model, text(rng, 1024), 64, time.perf_counter())
        if i >= 3:
            firsts.append(first), gaps.extend(g)
    print(f"idle, 1k prompt: first token {percentile(firsts, 50) * 1e3:.1f} ms (worst of 10: {max(firsts) * 1e3:.1f}), "
          f"then a token each {percentile(gaps, 50) * 1e3:.2f} ms", flush=True)


async def rate(session, url, model, r, seconds):
    rng = random.Random(round(r * 1000))
    start = time.perf_counter() + 0.5
    due, tasks = start, []
    while True:
        due += rng.expovariate(r)
        if due > start + seconds:
            break

        async def one(due=due, prompt=text(rng, draw(rng, PROMPT)), answer=draw(rng, ANSWER)):
            await asyncio.sleep(max(0, due - time.perf_counter()))
            return await ask(session, url, model, prompt, answer, due)

        tasks.append(asyncio.create_task(one()))
    done = await asyncio.gather(*tasks, return_exceptions=True)
    errors = [d for d in done if isinstance(d, Exception)]
    done = [d for d in done if not isinstance(d, Exception)]
    firsts, gaps = [d[0] for d in done], [g for d in done for g in d[1]]
    wall = time.perf_counter() - start
    good = percentile(firsts, 99) < 0.5 and percentile(gaps, 99) < 0.025 and not errors
    print(f"| {r:g} | {len(done)} | {sum(d[2] for d in done) / wall:.0f} | {percentile(firsts, 50) * 1e3:.0f} / "
          f"{percentile(firsts, 99) * 1e3:.0f} | {percentile(gaps, 50) * 1e3:.1f} / {percentile(gaps, 99) * 1e3:.1f} | "
          f"{len(errors)} | {'yes' if good else 'no'} |", flush=True)
    if errors:
        print("   first error:", str(errors[0])[:200], flush=True)


async def closed(session, url, model, requests, length, answer, at_once):
    rng, gate = random.Random(7), asyncio.Semaphore(at_once)

    async def one(prompt):
        body = {"model": model, "prompt": prompt, "max_tokens": answer, "temperature": 0, "ignore_eos": True,
                "min_tokens": answer}
        async with gate, session.post(url + "/v1/completions", json=body) as reply:
            if reply.status != 200:
                raise RuntimeError(f"{reply.status}: {(await reply.text())[:300]}")
            return (await reply.json())["usage"]["completion_tokens"]

    prompts = [[rng.randrange(3, 120_000) for _ in range(length)] for _ in range(requests)]
    start = time.perf_counter()
    done = await asyncio.gather(*map(one, prompts), return_exceptions=True)
    wall = time.perf_counter() - start
    errors = [d for d in done if isinstance(d, Exception)]
    tokens = sum(d for d in done if not isinstance(d, Exception))
    print(f"| {requests} x {length}/{answer}, {at_once} at once | {tokens} | {wall:.2f} | {tokens / wall:.0f} | {len(errors)} |", flush=True)
    if errors:
        print("   first error:", str(errors[0])[:200], flush=True)


async def blocks_held(session, metrics):
    """KV blocks in use when nothing has changed for a while, at most ten seconds."""
    for _ in range(100):
        text = await (await session.get(metrics)).text()
        used = [line for line in text.splitlines() if "kv_cache_block" in line and '"used"' in line]
        held = sum(float(line.split()[-1]) for line in used)
        if used and held == 0:
            break
        await asyncio.sleep(0.1)
    return f"{held:.0f}" if used else "unknown"


async def leave(session, url, model, prompt, answer, after):
    """Reads `after` events of a stream and goes away."""
    body = {"model": model, "prompt": prompt, "max_tokens": answer, "stream": True, "ignore_eos": True}
    async with session.post(url + "/v1/completions", json=body) as reply:
        if reply.status != 200:
            raise RuntimeError(f"{reply.status}: {(await reply.text())[:300]}")
        events = 0
        async for line in reply.content:
            events += line.startswith(b"data: {")
            if events >= after:
                break
        reply.close()


async def cancel(session, url, model, requests, metrics):
    rng, gate = random.Random(3), asyncio.Semaphore(200)

    async def one():
        async with gate:
            await leave(session, url, model, text(rng, rng.randrange(1, 2000)), 2000, rng.randrange(1, 20))

    done = await asyncio.gather(*(one() for _ in range(requests)), return_exceptions=True)
    errors = [d for d in done if d is not None]
    print(f"{requests} streams left: {len(errors)} errors, {await blocks_held(session, metrics)} blocks held", flush=True)
    if errors:
        print("   first error:", str(errors[0])[:200], flush=True)


# What every engine must take beside each other.
SAMPLING = [{"temperature": 0}, {"temperature": 0.8, "top_p": 0.9}, {"temperature": 1.2, "top_k": 40, "seed": 7},
            {"temperature": 0.7, "min_p": 0.05, "repetition_penalty": 1.1}, {"temperature": 0, "logprobs": 5},
            {"temperature": 0.9, "presence_penalty": 0.5, "frequency_penalty": 0.3}, {"temperature": 1, "logit_bias": {"65": -100}}]
BAD = [{"prompt": "a", "max_tokens": -1}, {"prompt": "a", "temperature": 9}, {"prompt": [-5]}, {"prompt": "a", "n": 100_000},
       {"prompt": "a" * 140_000, "max_tokens": 4}, {"prompt": "a", "top_p": "much"}, {"max_tokens": 3}]


async def whole(session, url, model, prompt, answer, options):
    """Tokens of an answer that must have so many."""
    body = {"model": model, "prompt": prompt, "max_tokens": answer, "min_tokens": answer, "ignore_eos": True, "stream": True,
            "stream_options": {"include_usage": True}, **options}
    async with session.post(url + "/v1/completions", json=body) as reply:
        if reply.status != 200:
            raise RuntimeError(f"{reply.status}: {(await reply.text())[:300]}")
        last = None
        async for line in reply.content:
            if line.startswith(b"data: {"):
                last = line
    tokens = (json.loads(last[6:]).get("usage") or {}).get("completion_tokens")
    if tokens != answer:
        raise RuntimeError(f"{tokens} tokens of {answer}: {last[:200]}")
    return tokens


async def refused(session, url, model, body):
    async with session.post(url + "/v1/completions", json={"model": model, **body}) as reply:
        if not 400 <= reply.status < 500:
            raise RuntimeError(f"a bad request got {reply.status}: {(await reply.text())[:300]}")


async def watch(session, metrics, seen):
    """The share of blocks in use and the GPU's memory, every five seconds."""
    while True:
        text = await (await session.get(metrics)).text()
        value = lambda *marks: max((float(line.split()[-1]) for line in text.splitlines()
                                    if not line.startswith("#") and all(mark in line for mark in marks)), default=float("nan"))
        seen.append((value("kv_cache_block", '"fraction"'), value("nv_gpu_memory_used_bytes") / 2**20))
        await asyncio.sleep(5)


async def mixed(session, url, model, seconds, at_once, metrics):
    rng, start = random.Random(5), time.perf_counter()
    end = start + seconds
    count, left, bad, errors, tokens, seen = 0, 0, 0, [], 0, []

    async def worker():
        nonlocal count, left, bad, tokens
        while time.perf_counter() < end:
            count += 1
            number, long = count, rng.random() < 0.25
            prompt = text(rng, rng.randrange(1000, 8000) if long else int(1000 ** rng.random()))
            answer, options = 1 + int(3000 * rng.random() ** 2), SAMPLING[count % len(SAMPLING)]
            try:
                if number % 10 == 0:
                    left += 1
                    await leave(session, url, model, prompt, answer, max(1, answer // 2))
                elif number % 20 == 1:
                    bad += 1
                    await refused(session, url, model, BAD[number // 20 % len(BAD)])
                else:
                    got = await whole(session, url, model, prompt, answer, options)
                    # Not in one line with the wait: the sum is read before it.
                    tokens += got
            except Exception as error:
                errors.append(error)

    watching = asyncio.create_task(watch(session, metrics, seen))
    workers = [asyncio.create_task(worker()) for _ in range(at_once)]
    await asyncio.wait(workers, timeout=seconds)
    # Whoever still waits goes away, all at once.
    pending = [task for task in workers if not task.done()]
    for task in [*pending, watching]:
        task.cancel()
    await asyncio.gather(*workers, watching, return_exceptions=True)
    seconds = time.perf_counter() - start
    shares, memory = [s for s, _ in seen], [m for _, m in seen]
    print(f"mixed, {seconds:.0f} s, {at_once} at once: {count} requests ({left} left half-way and {len(pending)} at the end, {bad} bad ones "
          f"refused), {tokens} tokens, "
          f"{len(errors)} errors, {await blocks_held(session, metrics)} blocks held", flush=True)
    print(f"   blocks in use: most {max(shares):.2f}, median {percentile(shares, 50):.2f} of all; GPU memory MiB: "
          f"{', '.join(f'{m:.0f}' for m in memory[::max(1, len(memory) // 10)])}", flush=True)
    for error in list(dict.fromkeys(f"{type(e).__name__} {e}"[:300] for e in errors))[:5]:
        print("   error:", error, flush=True)


async def main():
    url, model, what = sys.argv[1:4]
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=300)) as session:
        if what == "idle":
            return await idle(session, url, model)
        if what == "closed":
            return await closed(session, url, model, *map(int, sys.argv[4:8]))
        if what == "cancel":
            return await cancel(session, url, model, int(sys.argv[4]), sys.argv[5])
        if what == "mixed":
            return await mixed(session, url, model, float(sys.argv[4]), int(sys.argv[5]), sys.argv[6])
        print("| requests/s | answered | tokens/s | first token ms p50 / p99 | between tokens ms p50 / p99 | errors | good |")
        print("|---|---|---|---|---|---|---|", flush=True)
        for r in sys.argv[4].split(","):
            await rate(session, url, model, float(r), float(sys.argv[5]))


asyncio.run(main())
