// The people of the demo. They are the same as those of Doorward's own sample
// provider, so that one story can be told with both.
const person = (username, name, mfa, deviceid, groups) => ({
  password: 'demo',
  mfa,
  claims: {
    sub: username,
    preferred_username: username,
    name,
    email: `${username}@example.com`,
    email_verified: true,
    groups,
    ...(deviceid && { deviceid }),
  },
});

export const accounts = new Map(
  [
    person('alice', 'Alice Adams', true, 'laptop-alice', ['eng', 'finance']),
    person('bob', 'Bob Brown', false, undefined, ['sales']),
    person('carol', 'Carol Clark', true, 'laptop-carol', ['finance']),
    person('dave', 'Dave Davis', false, 'laptop-dave', ['eng']),
  ].map((account) => [account.claims.sub, account]),
);

// The second factor of everyone who has one.
export const demoCode = '123456';
