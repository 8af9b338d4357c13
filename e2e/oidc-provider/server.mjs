// An independent, certified OpenID provider for Doorward's stories.
//
// Environment: PORT (required), ISSUER (default http://127.0.0.1:PORT),
// CLIENT_ID (doorward), CLIENT_SECRET (required), CLIENT_AUTH
// (client_secret_basic), REDIRECT_URIS and POST_LOGOUT_URIS (separated by
// blanks), ACCESS_TOKEN_TTL (seconds, 600). FAPI=1 demands all that FAPI 2.0
// does: pushed requests, a client known by the keys in CLIENT_JWKS (JSON), and
// DPoP with nonces. With CLIENT_AUTH=tls_client_auth (certificates from CLIENT_CA
// for CN=doorward) or self_signed_tls_client_auth (of CLIENT_JWKS) the client has
// a certificate instead of keys; TLS_CERT and TLS_KEY are the provider's own. BACKCHANNEL_URI is where the client is told of logouts,
// SIGNING_KEYS (a JSON list of private JWKs, required) are what it signs with:
// making keys here and exporting them made Node 20 hang in one start of 25.
// Prints "ready" once it listens, and with FAPI=1 one line for each request with
// what it was made of.
import { readFileSync } from 'node:fs';
import { createServer, request } from 'node:http';
import { createServer as createTLSServer } from 'node:https';
import { randomBytes } from 'node:crypto';
import Provider, { interactionPolicy } from 'oidc-provider';
import { accounts, demoCode } from './accounts.mjs';
import { errorPage, loginPage, logoutPage, otpPage, signedOutPage } from './pages.mjs';

const required = (name) => {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set`);
  return value;
};
const words = (name) => (process.env[name] ?? '').split(/\s+/).filter(Boolean);

const port = Number(required('PORT'));
const issuer = process.env.ISSUER ?? `http://127.0.0.1:${port}`;
const tokenLifetime = Number(process.env.ACCESS_TOKEN_TTL ?? 600);

const fapi = process.env.FAPI === '1';
const clientAuth = process.env.CLIENT_AUTH ?? (fapi ? 'private_key_jwt' : 'client_secret_basic');
const certificate = fapi && clientAuth.endsWith('tls_client_auth');
const read = (name) => process.env[name] && readFileSync(process.env[name]);

const backchannel = process.env.BACKCHANNEL_URI;

// tellNeighbour takes the place of fetch for the back-channel: the library's own
// refuses addresses of this machine, and Doorward is on it, under names
// (*.localhost) that Node does not resolve.
const tellNeighbour = (uri, { method, headers, body }) => new Promise((resolve, reject) => {
  const { host, port, pathname } = new URL(uri);
  const options = { host: '127.0.0.1', port, path: pathname, method, headers: { ...Object.fromEntries(headers), host } };
  request(options, (res) => resolve(new Response(null, { status: res.resume().statusCode }))).on('error', reject).end(`${body}`);
});

// wantedClasses lists the acr values a client asks for.
const wantedClasses = (params) => {
  const acr = (params.claims && JSON.parse(params.claims)?.id_token?.acr) || {};
  const values = acr.values ?? (acr.value ? [acr.value] : []);
  return {
    values: [...values, ...(params.acr_values ?? '').split(' ').filter(Boolean)],
    essential: acr.essential === true,
  };
};

// The library asks again only for an essential acr. Ask for a voluntary one as
// well, once per login, of people who can do it.
const policy = interactionPolicy.base();
policy.get('login').checks.add(new interactionPolicy.Check(
  'voluntary_acr', 'a second factor is asked for', 'interaction_required',
  ({ oidc }) => {
    const { values, essential } = wantedClasses(oidc.params);
    return !essential && values.includes('mfa') && !values.includes(oidc.acr)
      && !oidc.result?.login && accounts.get(oidc.session.accountId)?.mfa === true;
  },
));

const provider = new Provider(issuer, {
  clients: [{
    client_id: process.env.CLIENT_ID ?? 'doorward',
    ...(fapi ? {
      ...(clientAuth === 'tls_client_auth'
        ? { tls_client_auth_subject_dn: 'CN=doorward' }
        : { jwks: JSON.parse(required('CLIENT_JWKS')) }),
      require_pushed_authorization_requests: true,
      [certificate ? 'tls_client_certificate_bound_access_tokens' : 'dpop_bound_access_tokens']: true,
      id_token_signed_response_alg: 'ES256',
    } : {
      client_secret: required('CLIENT_SECRET'),
    }),
    token_endpoint_auth_method: clientAuth,
    grant_types: ['authorization_code', 'refresh_token'],
    redirect_uris: words('REDIRECT_URIS'),
    post_logout_redirect_uris: words('POST_LOGOUT_URIS'),
    require_auth_time: true,
    ...(backchannel && { backchannel_logout_uri: backchannel, backchannel_logout_session_required: true }),
  }],
  jwks: {
    keys: JSON.parse(required('SIGNING_KEYS')),
  },
  fetch: (uri, options) => (uri === backchannel ? tellNeighbour(uri, options) : fetch(uri, options)),
  findAccount: (ctx, id) => {
    const account = accounts.get(id);
    return account && { accountId: id, claims: () => account.claims };
  },
  claims: {
    openid: ['sub', 'groups', 'deviceid', 'acr', 'amr', 'sid'],
    email: ['email', 'email_verified'],
    profile: ['name', 'preferred_username'],
    acr: null, amr: null, auth_time: null, iss: null, sid: null,
  },
  scopes: ['openid', 'offline_access', 'groups'],
  acrValues: ['pwd', 'mfa'],
  conformIdTokenClaims: false, // put the claims of scopes into the ID token
  pkce: { required: () => true },
  ...(fapi && { clientAuthMethods: [clientAuth] }),
  issueRefreshToken: (ctx, client) => client.grantTypeAllowed('refresh_token'),
  rotateRefreshToken: true,
  ttl: { AccessToken: tokenLifetime, IdToken: tokenLifetime, RefreshToken: 8 * 3600, Session: 8 * 3600, Grant: 8 * 3600, Interaction: 1800 },
  // Browsers do not keep the cookies of two ports of one host apart.
  cookies: {
    keys: [randomBytes(32)],
    names: { interaction: `_interaction_${port}`, resume: `_resume_${port}`, session: `_session_${port}` },
  },
  features: {
    devInteractions: { enabled: false },
    claimsParameter: { enabled: true },
    revocation: { enabled: true },
    backchannelLogout: { enabled: Boolean(backchannel) },
    ...(fapi && {
      dPoP: { enabled: !certificate, nonceSecret: randomBytes(32), requireNonce: () => true },
      mTLS: {
        enabled: certificate,
        certificateBoundAccessTokens: true,
        tlsClientAuth: true,
        selfSignedTlsClientAuth: true,
        getCertificate: ({ socket }) => socket.getPeerX509Certificate(),
        certificateAuthorized: ({ socket }) => socket.authorized,
        certificateSubjectMatches: ({ socket }, property, expected) => socket.getPeerX509Certificate().subject === expected,
      },
      pushedAuthorizationRequests: { enabled: true, requirePushedAuthorizationRequests: true },
      fapi: { enabled: true, profile: '2.0' },
    }),
    rpInitiatedLogout: {
      enabled: true,
      logoutSource: (ctx, form) => { ctx.body = logoutPage(form); },
      postLogoutSuccessSource: (ctx) => { ctx.body = signedOutPage(); },
    },
  },
  interactions: { policy, url: (ctx, interaction) => `/interaction/${interaction.uid}` },
  renderError: (ctx, out) => {
    ctx.type = 'html';
    ctx.body = errorPage(out.error, out.error_description);
  },
  // Everybody consents to everything.
  loadExistingGrant: async ({ oidc }) => {
    const known = oidc.session.grantIdFor(oidc.client.clientId);
    const grant = (known && await oidc.provider.Grant.find(known))
      || new oidc.provider.Grant({ clientId: oidc.client.clientId, accountId: oidc.session.accountId });
    grant.addOIDCScope('openid profile email groups offline_access');
    await grant.save();
    return grant;
  },
});

const readForm = async (req) => {
  let text = '';
  for await (const chunk of req) {
    text += chunk;
    if (text.length > 65536) throw new Error('form too large');
  }
  return new URLSearchParams(text);
};

const show = (res, html, status = 200) => {
  res.writeHead(status, { 'content-type': 'text/html; charset=utf-8', 'cache-control': 'no-store' }).end(html);
};

// passwordGiven remembers who needs nothing but the second factor, by login.
const passwordGiven = new Map();

const finish = (req, res, details, accountId, factors) => {
  passwordGiven.delete(details.uid);
  const acr = factors.includes('mfa') ? 'mfa' : 'pwd';
  const { values, essential } = wantedClasses(details.params);
  if (essential && values.length > 0 && !values.includes(acr)) {
    return provider.interactionFinished(req, res, {
      error: 'unmet_authentication_requirements', error_description: `${accountId} cannot log in in the way asked for`,
    });
  }
  return provider.interactionFinished(req, res, { login: { accountId, acr, amr: factors } });
};

// afterPassword asks for the second factor where it is wanted and possible.
const afterPassword = (req, res, details, accountId) => {
  if (accounts.get(accountId).mfa && wantedClasses(details.params).values.includes('mfa')) {
    passwordGiven.set(details.uid, accountId);
    return show(res, otpPage(details.uid, accountId, demoCode));
  }
  return finish(req, res, details, accountId, ['pwd']);
};

// onlyFactorMissing tells that the person is logged in and needs no password.
const onlyFactorMissing = ({ prompt, session }) => session?.accountId && prompt.name === 'login'
  && prompt.reasons.every((reason) => ['essential_acr', 'essential_acrs', 'voluntary_acr'].includes(reason));

const interaction = async (req, res, action) => {
  const details = await provider.interactionDetails(req, res);
  const { uid } = details;
  switch (`${req.method} ${action}`) {
    case 'GET ':
      return onlyFactorMissing(details)
        ? afterPassword(req, res, details, details.session.accountId)
        : show(res, loginPage(uid, details.params.login_hint));
    case 'POST login': {
      const form = await readForm(req);
      const username = form.get('username') ?? '';
      const account = accounts.get(username);
      if (!account || account.password !== form.get('password')) {
        return show(res, loginPage(uid, username, 'The username or the password is not right.'), 422);
      }
      return afterPassword(req, res, details, username);
    }
    case 'POST otp': {
      const form = await readForm(req);
      const accountId = passwordGiven.get(uid);
      if (!accountId) return show(res, errorPage('invalid_request', 'no password was given'), 400);
      if (form.get('otp') !== demoCode) return show(res, otpPage(uid, accountId, demoCode, 'That code is not right.'), 422);
      return finish(req, res, details, accountId, ['pwd', 'otp', 'mfa']);
    }
    default:
      return show(res, errorPage('not_found'), 404);
  }
};

provider.on('backchannel.error', (ctx, err) => console.error(`back-channel logout: ${err.message}`));

const serveProvider = provider.callback();
const serve = (req, res) => {
  if (fapi) {
    res.on('finish', () => console.log(`${req.method} ${req.url.split('?')[0]} ${res.statusCode}${req.headers.dpop ? ' dpop' : ''}${req.headers.authorization?.startsWith('DPoP ') ? ' bound' : ''}`));
  }
  const match = /^\/interaction\/[\w-]+(?:\/(login|otp))?$/.exec(req.url);
  if (!match) return serveProvider(req, res);
  return interaction(req, res, match[1] ?? '').catch((err) => {
    console.error(err);
    show(res, errorPage('invalid_request', err.message), 400);
  });
};
const server = process.env.TLS_CERT
  ? createTLSServer({ cert: read('TLS_CERT'), key: read('TLS_KEY'), ca: read('CLIENT_CA'), requestCert: true, rejectUnauthorized: false }, serve)
  : createServer(serve);

server.listen(port, '127.0.0.1', () => console.log('ready'));
process.on('SIGTERM', () => server.close(() => process.exit(0)).closeAllConnections());
