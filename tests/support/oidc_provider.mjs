// The certified provider oidc-provider on a free port of this machine, for tests. A program for node.
//
// Called with the folder that `make oidc` made, the client's id, its secret and its redirect URI. Prints
// the issuer. Anybody logs in with any password; the groups of a person are in the name: ada.edge-admins.
import { createServer } from 'node:http';
import { pathToFileURL } from 'node:url';

const [modules, id, secret, redirect] = process.argv.slice(2);
const { Provider } = await import(pathToFileURL(`${modules}/node_modules/oidc-provider/lib/index.js`).href);
const server = createServer();
await new Promise((done) => server.listen(0, '127.0.0.1', done));
const issuer = `http://127.0.0.1:${server.address().port}`;
const provider = new Provider(issuer, {
  clients: [{ client_id: id, client_secret: secret, redirect_uris: [redirect] }],
  claims: { openid: ['sub'], profile: ['preferred_username', 'groups'] },
  conformIdTokenClaims: false, // claims of scopes are in the ID token, as most providers have it
  pkce: { required: () => true },
  findAccount: (_context, name) => ({
    accountId: name,
    claims: () => ({ sub: name, preferred_username: name.split('.')[0], groups: name.split('.').slice(1) }),
  }),
});
server.on('request', provider.callback());
console.log(issuer);
