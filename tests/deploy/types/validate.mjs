// Reads objects of operators (a JSON list) from standard input and prints what is wrong with each, one line a fault. The
// types are those that the packages beside this file were made of: the operators' own definitions.
import { readFileSync } from "node:fs";

const PACKAGES = {
  "keda.sh": "@kubernetes-models/keda",
  "monitoring.coreos.com": "@kubernetes-models/prometheus-operator",
};

for (const object of JSON.parse(readFileSync(0, "utf8"))) {
  const { apiVersion, kind, ...rest } = object;
  const [group, version] = apiVersion.split("/");
  const name = `${kind} ${object.metadata?.name}`;
  const types = PACKAGES[group] && (await import(`${PACKAGES[group]}/${group}/${version}/${kind}`).catch(() => null));
  if (!types) {
    console.log(`${name}: ${apiVersion} has no kind ${kind}`);
    continue;
  }
  try {
    new types[kind](rest).validate();
  } catch (error) {
    console.log(`${name}: ${error.message.replaceAll("\n", "; ")}`);
  }
}
