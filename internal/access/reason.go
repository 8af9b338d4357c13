package access

import "net/http"

// Reason is a word from a closed list. It is what audit events, metrics and
// problem documents carry, and the only source of text a visitor reads.
type Reason string

// Reasons to let a request pass.
const (
	Allowed     Reason = "allowed"
	PublicRoute Reason = "public"
)

// Reasons of requests nobody can decide on.
const (
	BadRequest     Reason = "bad_request"
	AmbiguousPath  Reason = "ambiguous_path"
	HeaderTooLarge Reason = "header_too_large"
	NoRoute        Reason = "no_route"
	TooManyLogins  Reason = "too_many_logins"
	UpgradeRefused Reason = "upgrade_refused"
	// ServedElsewhere is for a route whose requests a front end forwards itself.
	ServedElsewhere Reason = "served_elsewhere"
	TooManyChecks   Reason = "too_many_checks"
	TooManyTunnels  Reason = "too_many_tunnels"
	// OriginRefused is for a page of another origin that the route does not name.
	OriginRefused Reason = "origin_refused"
	BodyTooLarge  Reason = "body_too_large"
)

// Reasons of limits: who came too often, or had too much under way.
const (
	IdentityTooFast         Reason = "identity_too_fast"
	IdentityTooManyRequests Reason = "identity_too_many_requests"
	IdentityTooManyStreams  Reason = "identity_too_many_streams"
	NetworkTooFast          Reason = "network_too_fast"
	NetworkTooManyRequests  Reason = "network_too_many_requests"
	NetworkTooManyStreams   Reason = "network_too_many_streams"
	RouteTooFast            Reason = "route_too_fast"
	RouteTooManyRequests    Reason = "route_too_many_requests"
	RouteTooManyStreams     Reason = "route_too_many_streams"
	// StrangersTooFast is for a network that sends too much which is of nobody.
	StrangersTooFast Reason = "strangers_too_fast"
)

// Reasons about who is asking.
const (
	LoginRequired   Reason = "login_required"
	SessionExpired  Reason = "session_expired"
	SessionEnded    Reason = "session_ended"
	LoginTooOld     Reason = "login_too_old"
	ACRInsufficient Reason = "acr_insufficient"
	AMRInsufficient Reason = "amr_insufficient"
	StepUpFailed    Reason = "step_up_failed"

	PhishingResistantNeeded Reason = "phishing_resistant_needed"
	SessionTooOld           Reason = "session_too_old"
	FormNotKept             Reason = "form_not_kept"
)

// Reasons a login did not work.
const (
	LoginFailed         Reason = "login_failed"
	LoginStateUnknown   Reason = "login_state_unknown"
	LoginMixUp          Reason = "login_mix_up"
	LoginRefused        Reason = "login_refused_by_provider"
	LoginLoop           Reason = "login_loop"
	TokenInvalid        Reason = "token_invalid"
	ProviderUnavailable Reason = "provider_unavailable"
	ReturnURLInvalid    Reason = "return_url_invalid"

	LogoutTokenInvalid  Reason = "logout_token_invalid"
	LogoutTokenRepeated Reason = "logout_token_repeated"
	LogoutMismatch      Reason = "logout_mismatch"

	TokenExpired         Reason = "token_expired"
	TokenAudience        Reason = "token_audience"
	TokenNotAccessToken  Reason = "token_not_access_token"
	TokenBindingMismatch Reason = "token_binding_mismatch"
	TokenRevoked         Reason = "token_revoked"
	ProofInvalid         Reason = "proof_invalid"
)

// Reasons about the device.
const (
	DeviceMissing           Reason = "device_missing"
	DeviceUnknown           Reason = "device_unknown"
	DeviceNotManaged        Reason = "device_not_managed"
	DeviceNotCompliant      Reason = "device_not_compliant"
	DeviceNotEncrypted      Reason = "device_not_encrypted"
	DeviceJailbroken        Reason = "device_jailbroken"
	DeviceAtRisk            Reason = "device_at_risk"
	DeviceOSTooOld          Reason = "device_os_too_old"
	DeviceFactMissing       Reason = "device_fact_missing"
	DeviceFactsTooOld       Reason = "device_facts_too_old"
	DeviceSourceUnavailable Reason = "device_source_unavailable"
	DeviceMismatch          Reason = "device_mismatch"
	DeviceSourceNotAccepted Reason = "device_source_not_accepted"
	DeviceChanged           Reason = "device_changed"
	DeviceOfAnotherUser     Reason = "device_of_another_user"
	DeviceClaimMissing      Reason = "device_claim_missing"
)

// Reasons about the certificate a device shows.
const (
	DeviceCertMissing       Reason = "device_certificate_missing"
	DeviceCertInvalid       Reason = "device_certificate_invalid"
	DeviceCertAuthority     Reason = "device_certificate_unknown_authority"
	DeviceCertPurpose       Reason = "device_certificate_wrong_purpose"
	DeviceCertExpired       Reason = "device_certificate_expired"
	DeviceCertNotYetValid   Reason = "device_certificate_not_yet_valid"
	DeviceCertRevoked       Reason = "device_certificate_revoked"
	DeviceCertStatusUnknown Reason = "device_certificate_status_unknown"
	DeviceCertForged        Reason = "device_certificate_forged"
)

// What became of a shared signal.
const (
	SignalApplied Reason = "signal_applied"
	SignalIgnored Reason = "signal_ignored"
	SignalHeld    Reason = "signal_held"
	SignalInvalid Reason = "signal_invalid"
)

// Reasons of the policy.
const (
	NotAllowed    Reason = "not_allowed"
	GroupsUnknown Reason = "groups_unknown"
	DeniedByRule  Reason = "denied_by_rule"
)

// Reasons on Doorward's own side and behind it.
const (
	InternalError       Reason = "internal_error"
	StoreUnavailable    Reason = "store_unavailable"
	AuditUnavailable    Reason = "audit_unavailable"
	UpstreamUnreachable Reason = "upstream_unreachable"
	UpstreamTimeout     Reason = "upstream_timeout"
	UpstreamTLSFailed   Reason = "upstream_tls_failed"
	// UpstreamIdentityWrong is for an upstream that proved to be somebody else than
	// the route names.
	UpstreamIdentityWrong Reason = "upstream_identity_wrong"
	UpstreamBroken        Reason = "upstream_broken"
	UpstreamBusy          Reason = "upstream_busy"
	ShuttingDown          Reason = "shutting_down"
	ClientGone            Reason = "client_gone"
	TargetProhibited      Reason = "target_prohibited"
	TunnelIdle            Reason = "tunnel_idle"
)

// Info is what a reason means: the status of the answer and the visitor's text.
type Info struct {
	// Status is the HTTP status of an answer to a program. Pages use the same,
	// except that LoginRequired and its kin redirect.
	Status int
	// Title is a headline without a full stop, Text one or two sentences, Cure
	// what the visitor can do. None of them holds a value from the request.
	Title, Text, Cure string
}

// infos is the closed list. A test checks that it is complete.
var infos = map[Reason]Info{
	Allowed:     {http.StatusOK, "Allowed", "The policy allows this request.", ""},
	PublicRoute: {http.StatusOK, "Public", "This address is open to everyone.", ""},

	BadRequest:      {http.StatusBadRequest, "This request is malformed", "Something in the request does not follow the HTTP standard, so it was not passed on.", "Check the address and try again."},
	AmbiguousPath:   {http.StatusBadRequest, "This address is ambiguous", "Servers disagree on what this address means, so it was not passed on.", "Follow a link instead of editing the address."},
	HeaderTooLarge:  {http.StatusRequestHeaderFieldsTooLarge, "The request headers are too large", "The browser sent more header data than this door accepts.", "Delete the cookies of this site and try again."},
	NoRoute:         {http.StatusNotFound, "There is nothing here", "No application is published at this address.", "Check the address for typing errors."},
	TooManyLogins:   {http.StatusTooManyRequests, "Too many logins at once", "This door is starting more logins than it can keep in mind.", "Wait a moment and try again."},
	ServedElsewhere: {http.StatusMisdirectedRequest, "This application is served elsewhere", "The request came to Doorward directly, but another server forwards the requests of this application.", "Open the application by its own address."},
	UpgradeRefused:  {http.StatusForbidden, "This connection cannot be upgraded", "The application behind this address does not accept upgraded connections.", "The owner of the route can enable WebSocket for it."},
	TooManyChecks:   {http.StatusTooManyRequests, "This was checked a moment ago", "The device management is not asked again so soon, so nothing new is known.", "Wait a few seconds, then check again."},

	TooManyTunnels: {http.StatusTooManyRequests, "Too many tunnels are open", "You, or everybody together towards this address, have as many tunnels open as this door permits.", "Close some of them and try again."},

	IdentityTooFast:         {http.StatusTooManyRequests, "You send too many requests", "Requests under your name come faster than this door passes them on.", "Wait a moment and try again. If you did not send them, tell your administrator."},
	IdentityTooManyRequests: {http.StatusTooManyRequests, "Too many of your requests are under way", "More requests under your name wait for their answers than this door permits at a time.", "Wait until some of them are done."},
	IdentityTooManyStreams:  {http.StatusTooManyRequests, "You have too many connections open", "More live connections under your name are open than this door permits at a time.", "Close pages that you do not need and try again."},
	NetworkTooFast:          {http.StatusTooManyRequests, "Too many requests come from your network", "Requests from your network come faster than this door takes them.", "Wait a moment and try again."},
	NetworkTooManyRequests:  {http.StatusTooManyRequests, "Too many requests from your network are under way", "More requests from your network wait for their answers than this door permits at a time.", "Wait a moment and try again."},
	NetworkTooManyStreams:   {http.StatusTooManyRequests, "Your network has too many connections open", "More live connections from your network are open than this door permits at a time.", "Close pages that you do not need and try again."},
	RouteTooFast:            {http.StatusTooManyRequests, "This application is busy", "All together send requests faster than this application may be given.", "Wait a moment and try again."},
	RouteTooManyRequests:    {http.StatusTooManyRequests, "This application is busy", "As many requests of all together are under way as this application may be given.", "Wait a moment and try again."},
	RouteTooManyStreams:     {http.StatusTooManyRequests, "This application is busy", "As many live connections are open as this application may be given.", "Wait a moment and try again."},
	StrangersTooFast:        {http.StatusTooManyRequests, "Too many unknown visitors from your network", "Logins, and requests of nobody who is known, come from your network faster than this door takes them.", "Wait a moment and try again."},

	OriginRefused: {http.StatusForbidden, "Another site asked for this", "A page of another site wants to use this application in your name, and the application is not open to that site.", "The owner of the route can name the site under cors or websocket_origins."},
	BodyTooLarge:  {http.StatusRequestEntityTooLarge, "This is too large", "What was sent is larger than this application takes.", "Send less at once, or ask the owner of the application."},

	LoginRequired:   {http.StatusUnauthorized, "Please log in", "This application is open to people who have logged in.", "Log in and you will be brought back here."},
	SessionExpired:  {http.StatusUnauthorized, "Your session has ended", "You have been logged in, but not recently enough.", "Log in again and you will be brought back here."},
	SessionEnded:    {http.StatusUnauthorized, "Your session was ended", "Your identity provider or an administrator ended the session.", "Log in again. If that fails, ask your help desk."},
	LoginTooOld:     {http.StatusUnauthorized, "Please log in again", "What you are about to do needs a recent login.", "Log in again and you will be brought back here."},
	ACRInsufficient: {http.StatusUnauthorized, "A stronger login is needed", "This application needs a stronger way of logging in than the one you used.", "Log in with your second factor."},
	AMRInsufficient: {http.StatusUnauthorized, "Another login method is needed", "This application needs a login method that you have not used.", "Log in with your second factor."},
	StepUpFailed:    {http.StatusForbidden, "The stronger login did not happen", "You logged in, but your identity provider did not confirm the strength this application needs.", "Set up a second factor with your identity provider, then try again."},

	PhishingResistantNeeded: {http.StatusUnauthorized, "A phishing-resistant login is needed", "This application needs a login that cannot be intercepted by a look-alike page.", "Log in with a passkey or a security key."},
	SessionTooOld:           {http.StatusUnauthorized, "Please log in again", "On a device that is trusted this far, a login does not last any longer.", "Log in again and you will be brought back here."},
	FormNotKept:             {http.StatusGone, "What you sent is not kept any more", "A form that needs a login is kept for ten minutes, for the person who sent it, and is sent once.", "Open the application and fill in the form again."},

	LoginFailed:         {http.StatusForbidden, "The login did not work", "Your identity provider's answer could not be accepted.", "Try again. If it keeps failing, give your help desk the incident number below."},
	LoginStateUnknown:   {http.StatusBadRequest, "This login has expired", "The login was started too long ago, in another browser, or was already used.", "Open the application again to start afresh."},
	LoginMixUp:          {http.StatusForbidden, "The login was answered by someone else", "The answer did not come from the identity provider you were sent to.", "Do not enter your password again. Tell your security team the incident number below."},
	LoginRefused:        {http.StatusForbidden, "Your identity provider refused the login", "The identity provider did not log you in.", "Try again or use another account."},
	LoginLoop:           {http.StatusForbidden, "The login does not come to an end", "You have been sent to log in several times in a row without success.", "Allow cookies for this site, then try again. If it keeps failing, give your help desk the incident number below."},
	TokenInvalid:        {http.StatusUnauthorized, "The token is not accepted", "The credentials in the request could not be verified.", "Request a new token for this application."},
	ProviderUnavailable: {http.StatusServiceUnavailable, "Logging in is not possible right now", "Your identity provider cannot be reached.", "People who are already logged in can go on working. Try again in a minute."},
	ReturnURLInvalid:    {http.StatusBadRequest, "This link leads elsewhere", "After the login you would have been sent to an address that this door does not protect.", "Open the application by its own address."},

	LogoutTokenInvalid:  {http.StatusBadRequest, "The logout token is not accepted", "The logout token does not fulfil OpenID Connect Back-Channel Logout 1.0, or is not for this relying party.", "The log has the details under this request."},
	LogoutTokenRepeated: {http.StatusBadRequest, "The logout token was used before", "A logout token counts once, and this one has ended its sessions.", "Send a new token for another logout."},
	LogoutMismatch:      {http.StatusBadRequest, "This logout is not about your session", "The identity provider asked to end a session that is not the one of this browser.", "To log out here, use the application's own log out."},

	TokenExpired:         {http.StatusUnauthorized, "The token has expired", "The access token in the request has reached its end.", "Request a new token."},
	TokenAudience:        {http.StatusUnauthorized, "The token is for someone else", "The access token in the request was issued for another application.", "Request a token with the audience of this application."},
	TokenNotAccessToken:  {http.StatusUnauthorized, "This is not an access token", "The request carries a token that was made for another purpose, such as an ID token.", "Send the access token instead."},
	TokenBindingMismatch: {http.StatusUnauthorized, "The token belongs to another key", "The access token may only be used together with the key it was issued to.", "Send it with that key: over mutual TLS, or with a DPoP proof."},
	TokenRevoked:         {http.StatusUnauthorized, "The token is not active", "The issuer of the access token says that it is revoked or unknown.", "Request a new token."},
	ProofInvalid:         {http.StatusUnauthorized, "The proof of possession is not accepted", "The DPoP proof in the request does not fit the request, or was used before.", "Make a new proof for every request."},

	DeviceMissing:           {http.StatusForbidden, "A managed device is needed", "This application is open to managed devices only, and yours did not identify itself.", "Use your managed device, or enrol this one."},
	DeviceUnknown:           {http.StatusForbidden, "This device is not known", "Your device identified itself, but no inventory knows it.", "Enrol the device with your IT department."},
	DeviceNotManaged:        {http.StatusForbidden, "This device is not managed", "This application is open to managed devices only.", "Enrol the device with your IT department."},
	DeviceNotCompliant:      {http.StatusForbidden, "This device is not compliant", "The device management reports that your device breaks a rule.", "Cure what is listed below, then try again."},
	DeviceNotEncrypted:      {http.StatusForbidden, "The disk is not encrypted", "This application needs a device with an encrypted disk.", "Turn on disk encryption, then try again."},
	DeviceJailbroken:        {http.StatusForbidden, "The device is rooted", "The protection of the operating system has been removed from this device.", "Restore the original system, or use another device."},
	DeviceAtRisk:            {http.StatusForbidden, "The device is at risk", "The device management reports a threat on this device.", "Stop using the device for sensitive work and tell your IT department."},
	DeviceOSTooOld:          {http.StatusForbidden, "The operating system is too old", "This application needs a newer version of your operating system.", "Install the system updates, then try again."},
	DeviceFactMissing:       {http.StatusForbidden, "Something is not known about this device", "The device management does not report a fact that this application needs.", "Ask your IT department to complete the record."},
	DeviceFactsTooOld:       {http.StatusForbidden, "What is known about this device is too old", "Your device has not reported to the device management recently.", "Connect the device to the network, let it synchronise, then try again."},
	DeviceSourceUnavailable: {http.StatusForbidden, "The device cannot be checked right now", "The device management cannot be reached.", "Try again in a few minutes."},
	DeviceMismatch:          {http.StatusForbidden, "The device is not the one it claims to be", "Two proofs of the device's identity name different devices.", "Log out and in again on this device. If it persists, tell your IT department."},
	DeviceChanged:           {http.StatusForbidden, "What is known about this device has changed", "The device management says something else about your device than before.", "Open the application again."},
	DeviceSourceNotAccepted: {http.StatusForbidden, "Another inventory has to know this device", "What is known about your device comes from a device management that does not count for this application.", "Enrol the device where your IT department asks for it."},
	DeviceOfAnotherUser:     {http.StatusForbidden, "This device belongs to someone else", "The device management names another person as the owner of this device.", "Use your own device, or log in as the person this device belongs to. If it has changed hands, tell your IT department."},
	DeviceClaimMissing:      {http.StatusForbidden, "Your login does not name this device", "This application needs your identity provider to confirm the device, and your login does not say which one you use.", "Log out and in again with the browser profile that your IT department set up on this device."},

	DeviceCertMissing:       {http.StatusForbidden, "A device certificate is needed", "This application is open to devices that prove themselves with a certificate, and yours showed none that is known.", "Choose the certificate of this device when the browser asks. If it does not ask, tell your IT department."},
	DeviceCertInvalid:       {http.StatusForbidden, "The device certificate is not accepted", "The certificate that your device presented cannot be verified.", "Renew the certificate with your IT department."},
	DeviceCertAuthority:     {http.StatusForbidden, "The device certificate is of an unknown authority", "The certificate that your device presented was not issued by the authority of your organisation's devices.", "Choose the certificate of this device when the browser asks, or have one issued by your IT department."},
	DeviceCertPurpose:       {http.StatusForbidden, "The certificate is not one of a device", "The certificate that your device presented was issued for another purpose.", "Choose the certificate of this device when the browser asks, or have one issued by your IT department."},
	DeviceCertExpired:       {http.StatusForbidden, "The device certificate has expired", "The certificate that your device presented is no longer valid.", "Renew the certificate with your IT department."},
	DeviceCertNotYetValid:   {http.StatusForbidden, "The device certificate is not valid yet", "The certificate that your device presented becomes valid in the future.", "Try again later. If the certificate should be valid already, tell your IT department."},
	DeviceCertRevoked:       {http.StatusForbidden, "The device certificate was revoked", "The authority that issued the certificate of your device has taken it back.", "If the device is in your hands, have a new certificate issued by your IT department."},
	DeviceCertStatusUnknown: {http.StatusForbidden, "The device certificate cannot be checked right now", "It is not known whether the certificate of your device is still good, because its authority does not say so.", "Try again in a few minutes."},
	DeviceCertForged:        {http.StatusForbidden, "This is no proof of a device", "The request carries a certificate in a header, from a sender that may not vouch for devices.", "Use your managed device directly. If you see this in front of one, tell your IT department."},

	SignalApplied: {http.StatusAccepted, "The signal was carried out", "Another party reported a change, and it was carried out here.", ""},
	SignalIgnored: {http.StatusAccepted, "The signal changes nothing", "Another party reported a change that concerns nothing here.", ""},
	SignalHeld:    {http.StatusAccepted, "The signal was not carried out", "Another party reported a change that would end more sessions at once than the configuration allows.", "If it is right, an operator can carry it out with doorward revoke."},
	SignalInvalid: {http.StatusBadRequest, "The signal is not accepted", "The security event token does not fulfil the Shared Signals Framework 1.0, or is not for this receiver.", "The log has the details under this request."},

	NotAllowed:    {http.StatusForbidden, "You do not have access", "No rule of this application allows what you asked for.", "Use another account, or ask the owner of the application for access."},
	GroupsUnknown: {http.StatusForbidden, "Your groups are not known", "Your identity provider did not say which groups you belong to, because there are too many.", "Ask your IT department to limit the groups it sends to this application."},
	DeniedByRule:  {http.StatusForbidden, "This is not permitted", "A rule of this application forbids what you asked for.", "The owner of the application can tell you more."},

	InternalError:         {http.StatusInternalServerError, "Something went wrong", "A fault on our side kept this request from being decided, so it was refused.", "Try again. If it keeps failing, give your help desk the incident number below."},
	StoreUnavailable:      {http.StatusServiceUnavailable, "Sessions cannot be read right now", "The place where sessions are kept does not answer.", "Try again in a minute."},
	AuditUnavailable:      {http.StatusServiceUnavailable, "Nothing can be recorded right now", "Every access has to be recorded, and the record cannot be written.", "Try again in a minute."},
	UpstreamUnreachable:   {http.StatusBadGateway, "The application does not answer", "You may use this application, but it cannot be reached.", "Try again in a minute."},
	UpstreamTimeout:       {http.StatusGatewayTimeout, "The application is too slow", "You may use this application, but it did not answer in time.", "Try again in a minute."},
	UpstreamTLSFailed:     {http.StatusBadGateway, "The application could not prove who it is", "The certificate of the application was not accepted, so nothing was sent to it.", "The owner of the application has to renew its certificate."},
	UpstreamIdentityWrong: {http.StatusBadGateway, "Another application answered", "Who answered is not the application behind this address, so nothing was sent to it.", "The owner of the application has to look at its certificate and its address."},
	UpstreamBroken:        {http.StatusBadGateway, "The application answered badly", "The application's answer does not follow the HTTP standard.", "Try again in a minute."},
	UpstreamBusy:          {http.StatusServiceUnavailable, "The application has too much to do", "You may use this application, but it has as many requests as it can take.", "Try again in a few seconds."},
	ShuttingDown:          {http.StatusServiceUnavailable, "This door is closing", "The service is being restarted.", "Try again in a moment."},
	ClientGone:            {499, "The visitor left", "The connection was closed before the answer was complete.", ""},
	TargetProhibited:      {http.StatusForbidden, "This address cannot be reached through a tunnel", "You may use this tunnel, but its name leads to an address that no tunnel may lead to.", "The owner of the route can correct the name, or list the address under networks."},
	TunnelIdle:            {http.StatusRequestTimeout, "The tunnel was idle", "Nothing was sent through the tunnel for a long time, so it was closed.", "Open it again. Many programs can send a sign of life now and then."},
}

// Info returns what the reason means. A reason outside the list, also the empty
// one, reads as InternalError.
func (r Reason) Info() Info {
	if info, ok := infos[r]; ok {
		return info
	}
	return infos[InternalError]
}

// Known reports whether the reason is on the list.
func (r Reason) Known() bool { _, ok := infos[r]; return ok }

// CuredByLogin reports whether logging in, again or more strongly, can cure it.
func (r Reason) CuredByLogin() bool {
	switch r {
	case LoginRequired, SessionExpired, SessionEnded, LoginTooOld, ACRInsufficient, AMRInsufficient, PhishingResistantNeeded,
		SessionTooOld:
		return true
	}
	return false
}

// AboutDevice reports whether the reason is something the device lacks.
func (r Reason) AboutDevice() bool {
	switch r {
	case DeviceMissing, DeviceUnknown, DeviceNotManaged, DeviceNotCompliant, DeviceNotEncrypted,
		DeviceJailbroken, DeviceAtRisk, DeviceOSTooOld, DeviceFactMissing, DeviceFactsTooOld,
		DeviceSourceUnavailable, DeviceMismatch, DeviceSourceNotAccepted, DeviceChanged, DeviceOfAnotherUser, DeviceClaimMissing,
		DeviceCertMissing, DeviceCertInvalid, DeviceCertAuthority, DeviceCertPurpose, DeviceCertExpired,
		DeviceCertNotYetValid, DeviceCertRevoked, DeviceCertStatusUnknown, DeviceCertForged:
		return true
	}
	return false
}

// CuredByInventory reports whether it can be cured by what an inventory says of
// the device, so that asking it again makes sense.
func (r Reason) CuredByInventory() bool {
	switch r {
	case DeviceUnknown, DeviceNotManaged, DeviceNotCompliant, DeviceNotEncrypted, DeviceJailbroken, DeviceAtRisk,
		DeviceOSTooOld, DeviceFactMissing, DeviceFactsTooOld, DeviceSourceUnavailable, DeviceOfAnotherUser, DeviceSourceNotAccepted:
		return true
	}
	return false
}

// Reasons returns the whole list, in no particular order.
func Reasons() []Reason {
	list := make([]Reason, 0, len(infos))
	for r := range infos {
		list = append(list, r)
	}
	return list
}
