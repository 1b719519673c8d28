// Plays LibreChat: the TypeScript SDK's clients, called the way LibreChat calls them. One JSON command a line on stdin,
// one JSON answer a line on stdout, in the order in which they are done.
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { SSEClientTransport } from '@modelcontextprotocol/sdk/client/sse.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { CallToolResultSchema } from '@modelcontextprotocol/sdk/types.js';
import { createInterface } from 'node:readline';

const clients = new Map();
const aborts = new Map();

const say = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);

function transportFor({ transport, url, headers }) {
  const address = new URL(url);
  // headers of the stream and of every message; redirects are not followed, as in LibreChat
  const eventSourceInit = {
    fetch: (target, init) => fetch(target, { ...init, redirect: 'manual', headers: new Headers(headers) }),
  };
  return transport === 'sse'
    ? new SSEClientTransport(address, { requestInit: { headers }, eventSourceInit })
    : new StreamableHTTPClientTransport(address, { requestInit: { headers } });
}

const commands = {
  async connect(command) {
    const client = new Client({ name: '@librechat/api-client', version: '1.2.3' }, { capabilities: {} });
    const state = { client, errors: [], closed: false };
    client.onerror = (error) => state.errors.push(`${error}`);
    client.onclose = () => (state.closed = true);
    await client.connect(transportFor(command));
    clients.set(command.client, state);
    return { instructions: client.getInstructions() ?? null, server: client.getServerVersion() };
  },
  async tools({ client }) {
    return await clients.get(client).client.listTools();
  },
  async call({ client, id, name, args, timeout }) {
    const controller = new AbortController();
    aborts.set(id, controller);
    return await clients.get(client).client.request(
      { method: 'tools/call', params: { name, arguments: args } },
      CallToolResultSchema,
      { timeout: timeout ?? 300000, resetTimeoutOnProgress: true, signal: controller.signal },
    );
  },
  async abort({ target }) {
    aborts.get(target).abort(new Error('the user pressed Stop'));
    return {};
  },
  async state({ client }) {
    const { errors, closed } = clients.get(client);
    return { errors, closed };
  },
  async close({ client }) {
    await clients.get(client).client.close();
    return {};
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  commands[command.do](command).then(
    (result) => say({ id: command.id, result }),
    (error) => say({ id: command.id, error: { message: `${error?.message ?? error}`, code: error?.code ?? null } }),
  );
}
process.exit(0);
