// Read by `tsc --noEmit`, never run: what a program in TypeScript may write, and what it may not.

import {
  Conflict, Machina, MachinaError, NotFound, setLogger, type Event, type Page, type Service, type Tool, type ToolResult,
} from "machina";

export async function program(signal: AbortSignal): Promise<string> {
  await using m = await Machina.open("sqlite:machina.db", { config: { limits: { services_max: 10 } }, monitor: false });
  const service: Service = await m.register({
    name: "time",
    build_priority: "HIGH",
    instances: [{ stdio: { command: "uvx", args: ["mcp-server-time"] }, weight: 2 }],
  });
  await m.update("time", service, { expected: service.revision });
  await m.put(await m.get("time"));
  const seen = await m.get("time");
  await m.update("time", { ...seen, tags: [...(seen.tags ?? []), "clock"] }, { expected: seen.revision });
  await m.apply([{ put: seen }]);
  const draft = structuredClone(seen) as Service;
  draft.tags = ["clock"];
  await m.put(draft);
  const page: Page<Service> = await m.find({ tags: ["clock"], status: ["healthy"], order: "status" });
  const tools: Tool[] = await m.findTools("the time", { limit: 3 });
  const answer: ToolResult = await m.call("time", tools[0].name, { timezone: "Europe/Paris" }, {
    timeout_ms: 500,
    idempotency_key: "once",
    signal,
    onProgress: ({ progress }) => progress.toFixed(1),
  });
  await m.tool<{ n: number }>("mine", { name: "double", inputSchema: { type: "object" }, executions_max: 2 }, async ({ n }, running) => {
    running.signal.throwIfAborted();
    running.progress(1, 2, "half");
    return { doubled: 2 * n };
  });
  const known: Tool = await m.getTool("mine", "double");
  for await (const event of m.watch({ since: page.revision, signal })) {
    told(event);
    break;
  }
  setLogger(({ level, message }) => console.log(level, message), "warn");
  setLogger(null);
  return `${known.hash} ${answer.content[0].text} ${service.health.state}`;
}

function told(event: Event): string {
  switch (event.type) {
    case "health_changed":
      return `${event.service}: ${event.from} -> ${event.to}, ${event.reason.message}`;
    case "definitions_changed":
      return event.added.join();
    case "resync":
      return "read again";
    default:
      return event.type;
  }
}

export function explained(error: unknown): string {
  if (error instanceof NotFound || error instanceof Conflict) return error.context.service ?? "";
  if (error instanceof MachinaError && error.context.outcome === "unknown") return error.code;
  return String(error);
}

export async function wrong(m: Machina): Promise<void> {
  // @ts-expect-error a service has a name
  await m.register({});
  // @ts-expect-error there is no such field
  await m.register({ name: "a", colour: "red" });
  // @ts-expect-error a name is a string, beside what was read too
  await m.put({ ...(await m.get("a")), name: 5 });
  // @ts-expect-error what was read is frozen
  (await m.get("a")).tags?.push("mine");
  // @ts-expect-error progress is a number
  await m.tool("a", { name: "b", inputSchema: {} }, (_, { progress }) => progress("half"));
  // @ts-expect-error nor such a status
  await m.find({ status: ["fine"] });
  // @ts-expect-error arguments are an object
  await m.call("a", "b", "c");
  // @ts-expect-error milliseconds are a number
  await m.call("a", "b", {}, { timeout_ms: "5s" });
  // @ts-expect-error it is made by open
  new Machina();
  // @ts-expect-error a function is missing
  await m.tool("a", { name: "b", inputSchema: {} });
  // @ts-expect-error there is no such code
  new MachinaError("x", { code: "lazy" });
}
