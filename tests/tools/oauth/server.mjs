// An OAuth 2 and OpenID Connect server on loopback. Its settings are one JSON argument; what it prints first is its URL.
//
//   { "port": 0, "access_token_seconds": 3600, "clients": [...], "jwks": {...}, "token_path": "/token" }
//
// Besides the endpoints of the protocol it has, for tests alone:
//   POST /test/grant   {client_id, account}   a refresh token, as an authorization would have given
//   POST /test/faults  {status, count}        the next requests to the token endpoint fail
//   GET  /test/counts                         how many token requests were answered, by grant type and status

import { createServer } from 'node:http';
import Provider from 'oidc-provider';

const settings = JSON.parse(process.argv[2]);
const counts = {};
let faults = { status: 0, count: 0 };
const listener = createServer();
await new Promise((done) => listener.listen(settings.port ?? 0, '127.0.0.1', done));
const issuer = `http://127.0.0.1:${listener.address().port}`;
const tokenPath = settings.token_path ?? '/token';

const provider = new Provider(issuer, {
  clients: settings.clients,
  jwks: settings.jwks,
  cookies: { keys: ['for tests'] },
  routes: { token: tokenPath },
  scopes: ['openid', 'offline_access', ...(settings.scopes ?? [])],
  rotateRefreshToken: true,
  clientAuthMethods: ['none', 'client_secret_post', 'client_secret_basic', 'private_key_jwt'],
  enabledJWA: { clientAuthSigningAlgValues: ['PS256', 'RS256', 'ES256'] },
  ttl: {
    AccessToken: settings.access_token_seconds ?? 3600,
    ClientCredentials: settings.access_token_seconds ?? 3600,
    RefreshToken: 86400,
    Grant: 86400,
  },
  features: {
    clientCredentials: { enabled: true },
    introspection: { enabled: true },
    devInteractions: { enabled: false },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => undefined,
      useGrantedResource: () => true,
      getResourceServerInfo: (_context, resource) => ({
        scope: (settings.scopes ?? []).join(' '),
        audience: resource,
        accessTokenFormat: 'jwt',
        accessTokenTTL: settings.access_token_seconds ?? 3600,
      }),
    },
  },
  extraTokenClaims: (_context, token) => settings.claims?.[token.clientId],
  findAccount: (_context, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
});

async function body(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return JSON.parse(Buffer.concat(chunks).toString() || '{}');
}

async function grant({ client_id: clientId, account }) {
  const made = new provider.Grant({ accountId: account, clientId });
  made.addOIDCScope('openid offline_access');
  const token = new provider.RefreshToken({
    client: await provider.Client.find(clientId),
    accountId: account,
    grantId: await made.save(),
    gty: 'authorization_code',
    scope: 'openid offline_access',
    authTime: Math.floor(Date.now() / 1000),
  });
  return { refresh_token: await token.save() };
}

function answer(response, value, status = 200) {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(JSON.stringify(value));
}

provider.use(async (context, next) => {
  await next();
  if (context.path === tokenPath) {
    const key = `${context.oidc?.params?.grant_type ?? 'unknown'} ${context.status}`;
    counts[key] = (counts[key] ?? 0) + 1;
  }
});
const serve = provider.callback();

listener.on('request', async (request, response) => {
  if (request.url === '/test/grant') return answer(response, await grant(await body(request)));
  if (request.url === '/test/counts') return answer(response, counts);
  if (request.url === '/test/faults') {
    faults = await body(request);
    return answer(response, {});
  }
  if (request.url === tokenPath && faults.count > 0) {
    faults.count -= 1;
    return answer(response, { error: 'temporarily_unavailable' }, faults.status);
  }
  return serve(request, response);
});
process.on('SIGTERM', () => process.exit(0));
console.log(issuer);
