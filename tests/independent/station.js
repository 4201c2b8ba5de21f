// A charging station made with `ocpp-rpc`, which shares no code with ours, in strict mode: both what it sends and what
// it receives is validated by its own schemas. It does what it is told on stdin and tells what happens on stdout, one
// JSON object a line (`client.py` is the other end).
'use strict';

const readline = require('node:readline');
const { createRequire } = require('node:module');

const installed = createRequire(process.argv[2] + '/');
const { RPCClient, createRPCError } = installed('ocpp-rpc');
const validators = installed('ocpp-rpc/lib/standard-validators.js');

const stations = new Map();
const tell = (thing) => process.stdout.write(JSON.stringify(thing) + '\n');

// What a good station answers to what needs more than a status, out of the question itself.
const computed = {
  SetVariables: (p) => ({
    setVariableResult: p.setVariableData.map((d) => ({
      attributeStatus: 'Accepted', component: d.component, variable: d.variable,
    })),
  }),
  GetVariables: (p) => ({
    getVariableResult: p.getVariableData.map((d) => ({
      attributeStatus: 'Accepted', attributeValue: '1', component: d.component, variable: d.variable,
    })),
  }),
  SetVariableMonitoring: (p) => ({
    setMonitoringResult: p.setMonitoringData.map((d, n) => ({
      id: n + 1, status: 'Accepted', type: d.type, severity: d.severity, component: d.component, variable: d.variable,
    })),
  }),
  ClearVariableMonitoring: (p) => ({
    clearMonitoringResult: p.id.map((id) => ({ id, status: 'Accepted' })),
  }),
};

function connect({ station, options, answers }) {
  const client = new RPCClient({
    strictMode: true, callTimeoutMs: 8000, pingIntervalMs: 600000, backoff: { initialDelay: 30, maxDelay: 200 },
    ...options,
  });
  const table = new Map(Object.entries(answers));
  stations.set(station, { client, table });
  client.handle(async ({ method, params }) => {
    tell({ event: 'asked', station, method, params });
    if (table.has(method)) {
      const answer = table.get(method);
      if (answer && answer.error) throw createRPCError(answer.error, answer.description ?? '', {});
      return answer;
    }
    return computed[method] ? computed[method](params) : { status: 'Accepted' };
  });
  client.on('strictValidationFailure', (f) => tell({
    event: 'strict', station, outbound: f.outbound, method: f.method, isCall: f.isCall,
    thing: f.isCall ? f.params : f.result, error: String(f.error),
  }));
  client.on('badMessage', (b) => tell({ event: 'bad', station, text: String(b.buffer), error: String(b.error) }));
  client.on('open', () => tell({ event: 'open', station, protocol: client.protocol }));
  client.on('disconnect', ({ code }) => tell({ event: 'disconnect', station, code }));
  return client.connect();
}

const does = {
  connect,
  call: ({ station, method, params }) => stations.get(station).client.call(method, params),
  answers: ({ station, answers }) => {
    for (const [method, answer] of Object.entries(answers)) stations.get(station).table.set(method, answer);
  },
  reconfigure: ({ station, options }) => stations.get(station).client.reconfigure(options),
  cut: ({ station }) => stations.get(station).client._ws.terminate(),
  close: ({ station }) => stations.get(station).client.close(),
  // Is this payload right by schemas that are not ours? Null when it is, else what is wrong.
  judge: ({ payloads }) => payloads.map(([protocol, schema, payload]) => {
    try {
      validators.find((v) => v.subprotocol === protocol).validate(`urn:${schema}`, payload);
      return null;
    } catch (error) {
      return String(error);
    }
  }),
};

readline.createInterface({ input: process.stdin }).on('line', async (line) => {
  const order = JSON.parse(line);
  try {
    tell({ id: order.id, result: (await does[order.do](order)) ?? null });
  } catch (error) {
    tell({ id: order.id, error: { code: String(error.rpcErrorCode ?? error.code ?? error.name), text: String(error) } });
  }
}).on('close', () => process.exit(0));
