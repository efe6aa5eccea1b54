// Decode and prefill speed of llama.cpp (prebuilt, from npm) on a GGUF file, in the form that bench_llm prints.
//
//   npm install --ignore-scripts --omit=optional node-llama-cpp@3.22.1 @node-llama-cpp/linux-x64@3.22.1
//   node llama_cpp.mjs FILE [threads] [prompt] [decode] [repeat]        (run where it is installed)
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";

const require = createRequire(path.join(process.cwd(), "x.js"));
const { getLlama, LlamaLogLevel } = await import(pathToFileURL(require.resolve("node-llama-cpp")).href);
const [file, threads = "0", prompt = "512", decode = "128", repeat = "5"] = process.argv.slice(2);
const llama = await getLlama({ build: "never", gpu: false, maxThreads: Number(threads), logLevel: LlamaLogLevel.error });
const model = await llama.loadModel({ modelPath: file });
const n = Number(prompt), m = Number(decode);
const tokens = Array.from({ length: n }, (_, i) => (i * 7919 + 13) % 49152);
const seconds = () => Number(process.hrtime.bigint()) / 1e9;
const context = await model.createContext({ contextSize: n + m + 64, batchSize: 512, threads: { ideal: Number(threads) || llama.cpuMathCores, min: Number(threads) || 1 } });
const sequence = context.getSequence();

async function run() {
    await sequence.clearHistory();
    // Evaluates all but the last token, without sampling; the last one belongs to the first generated token.
    const start = seconds();
    await sequence.evaluateWithoutGeneratingNewTokens(tokens);
    const prefill = n / (seconds() - start);
    let count = 0, begin = 0;
    for await (const _ of sequence.evaluate([28], { temperature: 0, yieldEogToken: true })) {
        if (count === 0) begin = seconds();
        if (count++ === m) break;
    }
    return [prefill, m / (seconds() - begin)];
}
await run();
const results = [];
for (let i = 0; i < Number(repeat); i++) results.push(await run());
const median = (i) => results.map((r) => r[i]).sort((a, b) => a - b)[Math.floor(results.length / 2)];
console.log(`engine=llama.cpp release=${llama.llamaCppRelease?.release} threads=${context.currentThreads} prompt=${n} decode=${m} ` +
    `prefill_tokens_per_s=${median(0).toFixed(1)} decode_tokens_per_s=${median(1).toFixed(1)}`);
process.exit(0);
