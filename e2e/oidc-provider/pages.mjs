// The provider's own pages: plain forms with the field names username, password
// and otp.
const escapes = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };
const escape = (text) => String(text).replace(/[&<>"']/g, (c) => escapes[c]);

const page = (title, body) => `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,"><title>${title} · oidc-provider</title>
<style>
:root { color-scheme: light dark }
body { max-width: 22rem; margin: 3rem auto; padding: 0 1rem; font: 1rem/1.5 system-ui, sans-serif }
label { display: block; margin-top: 1rem }
input, button { box-sizing: border-box; width: 100%; padding: .6rem; font: inherit }
button { margin-top: 1.5rem }
</style></head>
<body><main><h1>${title}</h1>${body}</main>
<p><small>A provider for tests. Never enter a real password here.</small></p></body></html>`;

const alert = (fault) => (fault ? `<p role="alert">${escape(fault)}</p>` : '');

export const loginPage = (uid, username = '', fault = '') => page('Sign in', `${alert(fault)}
<form method="post" action="/interaction/${escape(uid)}/login">
<label for="username">Username</label>
<input id="username" name="username" value="${escape(username)}" autocomplete="username" required>
<label for="password">Password</label>
<input id="password" name="password" type="password" autocomplete="current-password" required>
<button>Sign in</button>
</form>`);

export const otpPage = (uid, username, code, fault = '') => page('Second factor', `${alert(fault)}
<form method="post" action="/interaction/${escape(uid)}/otp">
<p>A second factor is needed for <strong>${escape(username)}</strong>.</p>
<label for="otp">One-time code</label>
<input id="otp" name="otp" value="${escape(code)}" inputmode="numeric" autocomplete="one-time-code" required>
<button>Verify</button>
</form>`);

// logoutPage submits itself in a browser; without scripts there is a button.
export const logoutPage = (form) => page('Sign out', `${form}
<input type="hidden" form="op.logoutForm" name="logout" value="yes">
<button form="op.logoutForm">Sign out</button>
<script>document.getElementById('op.logoutForm').submit()</script>`);

export const signedOutPage = () => page('Signed out', '<p>You can close this window.</p>');

export const errorPage = (code, text = '') => page('That did not work', `<p>${escape(code)}: ${escape(text)}</p>`);
