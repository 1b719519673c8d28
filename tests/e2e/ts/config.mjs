// Reads a librechat.yaml, as JSON on stdin, through LibreChat's own strict schema; prints what is left of the server.
import { configSchema, Constants } from 'librechat-data-provider';

let text = '';
for await (const chunk of process.stdin) text += chunk;
const parsed = configSchema.strict().safeParse(JSON.parse(text));
const answer = parsed.success
  ? { success: true, servers: parsed.data.mcpServers, newest: Constants.CONFIG_VERSION }
  : { success: false, issues: parsed.error.issues };
process.stdout.write(JSON.stringify(answer));
