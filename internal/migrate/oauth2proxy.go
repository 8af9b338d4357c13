package migrate

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/doorward/doorward/internal/access"
)

// oauth2ProxyIssuers are the issuers of its providers that are not called oidc.
var oauth2ProxyIssuers = map[string]string{"google": "https://accounts.google.com", "gitlab": "https://gitlab.com"}

// OAuth2Proxy reads the file of oauth2-proxy (TOML), and where there is one, its
// alpha configuration (YAML). Either may be empty.
func OAuth2Proxy(config, alpha []byte) (*Result, error) {
	var err error
	o := &oauth2Proxy{draft: newDraft("oauth2-proxy")}
	root := &yaml.Node{Kind: yaml.MappingNode, Line: 1}
	if len(config) > 0 {
		if root, err = parseTOML(config); err != nil {
			return nil, err
		}
	}
	o.main = newSection(root, "the file", &err)
	if len(alpha) > 0 {
		node, problem := parseYAML(alpha)
		if problem != nil {
			return nil, problem
		}
		o.alpha = newSection(node, "the alpha configuration", &err)
	} else {
		o.alpha = newSection(nil, "", &err)
	}
	o.read(len(config) > 0)
	if err != nil {
		return nil, err
	}
	return o.finish()
}

type oauth2Proxy struct {
	*draft
	main, alpha *section
	groups      []string
	headers     map[string]string
}

func (o *oauth2Proxy) read(hasMain bool) {
	id := o.provider()
	from := o.address()
	o.upstreams(from)
	o.injected()
	rules := o.authorization(id, hasMain)
	public := o.public()
	for i := range o.routes {
		rt := &o.routes[i]
		rt.Allow, rt.Headers = slices.Clone(rules), o.headers
		rt.Public = slices.Clone(public)
		for j := range rt.Public {
			rt.Public[j].Paths = o.within(rt, rt.Public[j].Paths)
		}
		rt.Public = slices.DeleteFunc(rt.Public, func(p access.Public) bool { return len(p.Paths) == 0 })
		rt.Preflight = rt.Preflight || o.main.flag("skip_auth_preflight")
	}
	o.settings()
	o.leaveRest(o.main, "")
	o.leaveRest(o.alpha, "")
}

// provider reads the identity provider, from wherever it stands.
func (o *oauth2Proxy) provider() string {
	p := provider{id: "corp", secretEnv: "OAUTH2_PROXY_CLIENT_SECRET", issuer: o.main.text("oidc_issuer_url"), clientID: o.main.text("client_id")}
	kind := o.main.text("provider")
	o.main.ignore("client_secret", "client_secret_file", "provider_display_name")
	p.groupsClaim = o.main.text("oidc_groups_claim")
	if scope := o.main.text("scope"); scope != "" {
		p.scopes = strings.Fields(scope)
	}
	o.groups = append(o.groups, o.main.texts("allowed_groups")...)
	line := o.main.at("provider")
	for i, s := range o.alpha.sections("providers") {
		if i > 0 {
			o.leave(s.line(), Closed, "providers["+s.text("id")+"]", "only the first provider is taken over")
			continue
		}
		line = s.line()
		p.id, kind, p.clientID = slug(s.text("id")), s.text("provider"), s.text("clientID")
		oidc := s.section("oidcConfig")
		p.issuer, p.groupsClaim = oidc.text("issuerURL"), oidc.text("groupsClaim")
		if scope := s.text("scope"); scope != "" {
			p.scopes = strings.Fields(scope)
		}
		o.groups = append(o.groups, s.texts("allowedGroups")...)
		s.ignore("clientSecret", "clientSecretFile", "name", "code_challenge_method")
		o.leaveRest(s, "providers."+p.id+".")
		if oidc.text("emailClaim") != "email" {
			oidc.taken["emailClaim"] = false // another claim than ours
		}
		o.leaveRest(oidc, "providers."+p.id+".oidcConfig.")
	}
	if p.issuer == "" {
		p.issuer = oauth2ProxyIssuers[kind]
	}
	p.issuer = o.issuerOr(p.issuer, "provider "+kind, line)
	if p.clientID == "" {
		p.clientID = "doorward"
		o.leave(line, ToDo, "client_id", "write the id under which Doorward is registered")
	}
	o.leave(0, ToDo, "client secret", "set the environment variable %s; the secret itself is not copied", p.secretEnv)
	o.leave(0, ToDo, "callback", "register /.doorward/callback of every host with the provider instead of /oauth2/callback")
	if p.scopes != nil && !slices.Contains(p.scopes, "openid") {
		p.scopes = append([]string{"openid"}, p.scopes...)
	}
	o.providers = append(o.providers, p)
	return p.id
}

// address returns the origin that visitors use.
func (o *oauth2Proxy) address() string {
	redirect := o.main.text("redirect_url")
	if from, _, ok := origin(redirect); ok {
		return from
	}
	o.leave(o.main.at("redirect_url"), ToDo, "redirect_url", "the file does not say at which host visitors come in: write it into `from`")
	return "https://app.invalid"
}

// upstreams reads where requests go. In the file the path of an upstream is the
// path it answers for.
func (o *oauth2Proxy) upstreams(from string) {
	hosted := o.main.flag("pass_host_header") || o.main.take("pass_host_header") == nil
	for _, text := range o.main.texts("upstreams") {
		line := o.main.at("upstreams")
		u, err := url.Parse(text)
		path := ""
		if err == nil {
			path = strings.TrimSuffix(u.EscapedPath(), "/")
		}
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || path != "" && !globText(path) {
			o.leave(line, Closed, text, "only http and https upstreams with plain paths are taken over")
			if err == nil {
				o.reserve(from, u.Fragment)
			}
			continue
		}
		rt := o.routeFor(from + path)
		if !o.upstream(rt, text, line) {
			o.leave(line, ToDo, text, "it is no address of an application")
		}
		rt.PreserveHost, rt.WebSocket = hosted, true
	}
	o.main.ignore("proxy_websockets")
	config := o.alpha.section("upstreamConfig")
	for _, s := range config.sections("upstreams") {
		o.alphaUpstream(from, s)
	}
	if config.flag("proxyRawPath") {
		o.leave(config.at("proxyRawPath"), Tighter, "proxyRawPath", "spellings of paths that servers read differently are refused; ambiguous_paths permits single kinds")
	}
	o.leaveRest(config, "upstreamConfig.")
	if len(o.routes) == 0 {
		o.routeFor(from)
		o.leave(0, ToDo, "upstreams", "the file names no upstream, as for use behind another proxy")
	}
}

// alphaUpstream reads one upstream of the alpha configuration.
func (o *oauth2Proxy) alphaUpstream(from string, s *section) {
	path, uri := s.text("path"), s.text("uri")
	if path == "" {
		path = "/"
	}
	u, err := url.Parse(uri)
	switch {
	case path != "/" && !globText(strings.TrimSuffix(path, "/")):
		o.leave(s.at("path"), Closed, "upstream "+s.text("id"), "its path %s is no plain path, as routes begin with", path)
		return
	case s.flag("static") || err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		o.leave(s.line(), Closed, "upstream "+s.text("id"), "only http and https upstreams are taken over")
		o.reserve(from, path)
		return
	}
	rt := o.routeFor(from + strings.TrimSuffix(path, "/"))
	if !o.upstream(rt, uri, s.at("uri")) {
		o.leave(s.at("uri"), ToDo, "upstream "+s.text("id"), "%q is no address of an application", uri)
	}
	rt.PreserveHost = s.take("passHostHeader") == nil || s.flag("passHostHeader")
	rt.WebSocket = s.take("proxyWebSockets") == nil || s.flag("proxyWebSockets")
	if target := u.EscapedPath(); s.take("rewriteTarget") != nil || target != "" && target != "/" && target != path {
		o.leave(s.line(), ToDo, "upstream "+s.text("id"), "write what becomes of the path into strip_prefix and add_prefix; anything but a prefix is passed on as it is")
	}
	if timeout, err := time.ParseDuration(s.text("timeout")); err == nil && timeout > 0 {
		rt.Timeout = access.Duration(timeout)
	}
	if s.flag("insecureSkipTLSVerify") {
		o.leave(s.at("insecureSkipTLSVerify"), Tighter, "insecureSkipTLSVerify", "certificates of upstreams are always verified: name their authority in upstream_tls.ca")
	}
	s.ignore("id", "flushInterval", "staticCode", "disableKeepAlives")
	o.leaveRest(s, "upstream.")
}

// reserve makes a route that nobody may use, so that what was answered there is
// not answered by a route above it.
func (o *oauth2Proxy) reserve(from, path string) {
	if path = strings.TrimSuffix(path, "/"); globText(path) {
		o.routeFor(from + path)
	}
}

// authorization returns the rules that say who may. An address of one of the
// domains is necessary, and one of the groups, if there are any.
func (o *oauth2Proxy) authorization(id string, hasMain bool) []access.Rule {
	domains := o.main.texts("email_domains")
	if o.main.take("email_domain") != nil {
		domains = append(domains, o.main.texts("email_domain")...)
	}
	if o.main.take("authenticated_emails_file") != nil {
		o.leave(o.main.at("authenticated_emails_file"), Closed, "authenticated_emails_file", "people are named by users: [PROVIDER:SUB]; e-mail addresses name nobody for certain")
	}
	if o.main.take("allowed_roles") != nil {
		o.leave(o.main.at("allowed_roles"), Closed, "allowed_roles", "roles are no claim of every provider: write claims or a condition")
		return nil
	}
	for _, key := range []string{"github_org", "github_team", "github_repo", "github_users", "google_groups", "google_group", "gitlab_groups", "gitlab_group", "gitlab_projects", "bitbucket_team", "bitbucket_repository", "azure_tenant", "htpasswd_file", "htpasswd_user_groups"} {
		if o.main.take(key) != nil {
			o.leave(o.main.at(key), Closed, key, "it limits who may by means that OpenID Connect does not have: say it with groups")
			return nil
		}
	}
	if !hasMain {
		o.leave(0, Closed, "email_domains", "who may is said in the main configuration: give that file as well")
		return nil
	}
	rule := access.Rule{Name: "members"}
	if !slices.Contains(domains, "*") {
		var terms []string
		for _, domain := range domains {
			if domain == "" || strings.ContainsAny(domain, "*\"'") {
				o.leave(o.main.at("email_domains"), Closed, domain, "it is no plain domain")
				continue
			}
			suffix := "@" + domain
			if strings.HasPrefix(domain, ".") {
				suffix = domain
			}
			terms = append(terms, "user.email.endsWith("+celText(strings.ToLower(suffix))+")")
		}
		if len(terms) == 0 {
			return nil
		}
		require(&rule, "user.email_verified")
		require(&rule, strings.Join(terms, " || "))
	}
	for _, group := range o.groups {
		rule.Groups = append(rule.Groups, o.group(id, group))
	}
	if len(rule.Groups) == 0 {
		openTo(&rule, id)
	}
	if o.main.flag("skip_jwt_bearer_tokens") || o.main.take("extra_jwt_issuers") != nil {
		o.leave(o.main.at("skip_jwt_bearer_tokens"), Closed, "skip_jwt_bearer_tokens", "programs need rules of their own: give the provider `audiences`, and name clients or scopes")
	}
	return []access.Rule{rule}
}

var skipRoute = regexp.MustCompile(`^([A-Z]{1,20})(!?)=(.*)$`)

// public reads what passes without login: METHOD=REGEX, REGEX, and METHOD!=REGEX.
func (o *oauth2Proxy) public() (list []access.Public) {
	entries := append(o.main.texts("skip_auth_routes"), o.main.texts("skip_auth_regex")...)
	for _, entry := range entries {
		methods, re := []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}, entry
		if m := skipRoute.FindStringSubmatch(entry); m != nil {
			re = m[3]
			if m[2] == "" {
				methods = []string{m[1]}
			} else {
				methods = slices.DeleteFunc(methods, func(method string) bool { return method == m[1] })
			}
		}
		p, ok := regexPattern(re)
		if !ok || len(p.globs) == 0 {
			o.leave(o.main.at("skip_auth_routes"), Closed, entry, "a public rule has globs, and none says the same: a login is required there")
			continue
		}
		list = append(list, access.Public{Name: unique(o.names(list), slug("open-"+re)), Methods: methods, Paths: p.globs})
	}
	if o.main.take("trusted_ips") != nil {
		o.leave(o.main.at("trusted_ips"), Closed, "trusted_ips", "an address is no reason to pass without login: write a public rule with networks if it has to be")
	}
	return list
}

func (o *oauth2Proxy) names(list []access.Public) map[string]bool {
	taken := map[string]bool{"members": true}
	for _, p := range list {
		taken[p.Name] = true
	}
	return taken
}

// claimFacts are what a claim is called in `headers`.
var claimFacts = map[string]string{"email": "email", "user": "sub", "sub": "sub", "groups": "groups", "preferred_username": "username", "name": "name"}

// injected reads the headers that upstreams get.
func (o *oauth2Proxy) injected() {
	o.headers = map[string]string{}
	asked := o.main.flag("set_xauthrequest")
	if o.main.flag("pass_user_headers") || o.main.take("pass_user_headers") == nil || asked {
		o.headers["X-Forwarded-User"], o.headers["X-Forwarded-Email"] = "sub", "email"
		o.headers["X-Forwarded-Groups"], o.headers["X-Forwarded-Preferred-Username"] = "groups", "username"
	}
	for _, s := range o.alpha.sections("injectRequestHeaders") {
		name := s.text("name")
		values := s.sections("values")
		if len(values) == 1 {
			claim := values[0].text("claim")
			if fact := claimFacts[claim]; fact != "" && len(values[0].rest()) == 0 && o.header(name) {
				o.headers[name] = fact
				s.ignore("preserveRequestValue", "insecureSkipHeaderNormalization")
				continue
			}
		}
		o.leave(s.line(), Dropped, "injectRequestHeaders "+name, "its value is no single fact about the visitor: applications verify Doorward-Assertion instead")
	}
	o.drop(o.alpha, "headers of responses are not changed", "injectResponseHeaders")
	o.drop(o.main, "tokens and passwords are never passed on: applications verify Doorward-Assertion instead",
		"pass_access_token", "pass_authorization_header", "set_authorization_header", "pass_basic_auth", "set_basic_auth", "basic_auth_password", "prefer_email_to_user")
}

// header reports whether a route may set a header.
func (o *oauth2Proxy) header(name string) bool {
	if !headerName.MatchString(name) || !strings.HasPrefix(strings.ToLower(name), "x-") {
		return false
	}
	for have := range o.headers {
		if strings.EqualFold(have, name) {
			delete(o.headers, have)
		}
	}
	return !slices.Contains([]string{"x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-request-id"}, strings.ToLower(name))
}

// settings reads what is set in other ways here.
func (o *oauth2Proxy) settings() {
	if expire, err := time.ParseDuration(o.main.text("cookie_expire")); err == nil && expire > 0 {
		o.lifetime = duration(expire)
	}
	if o.main.take("acr_values") != nil {
		o.leave(o.main.at("acr_values"), Differs, "acr_values", "it was asked for and not enforced: write require.login.acr where it has to hold")
	}
	for _, key := range []string{"insecure_oidc_allow_unverified_email", "insecure_oidc_skip_issuer_verification", "insecure_oidc_skip_nonce", "skip_oidc_discovery",
		"ssl_insecure_skip_verify", "ssl_upstream_insecure_skip_verify"} {
		if o.main.take(key) != nil {
			o.leave(o.main.at(key), Tighter, key, "this check cannot be turned off")
		}
	}
	o.drop(o.main, "sessions are kept in Doorward's own store, and its cookie has one form", "cookie_name", "cookie_domains", "cookie_domain", "cookie_secure", "cookie_httponly",
		"cookie_samesite", "cookie_path", "cookie_refresh", "cookie_secret", "cookie_secret_file", "cookie_csrf_per_request", "cookie_csrf_expire", "session_store_type",
		"session_cookie_minimal", "redis_connection_url", "redis_password", "redis_use_sentinel", "whitelist_domains")
	o.drop(o.main, "listeners and certificates are written anew under `server`", "http_address", "https_address", "tls_cert_file", "tls_key_file", "tls_min_version",
		"reverse_proxy", "real_client_ip_header", "metrics_address", "metrics_secure_address", "proxy_prefix", "ping_path", "ready_path", "force_https")
	o.drop(o.alpha, "listeners and certificates are written anew under `server`", "server", "metricsServer")
	o.drop(o.main, "logs and pages are Doorward's own", "request_logging", "auth_logging", "standard_logging", "logging_filename", "silence_ping_logging", "footer", "banner",
		"custom_templates_dir", "custom_sign_in_logo", "skip_provider_button", "show_debug_on_error", "exclude_logging_paths")
	o.drop(o.main, "the provider's metadata say it, PKCE and nonce are always on", "login_url", "redeem_url", "oidc_jwks_url", "profile_url", "validate_url",
		"code_challenge_method", "prompt", "approval_prompt", "oidc_email_claim", "user_id_claim", "oidc_audience_claims", "oidc_extra_audiences", "backend_logout_url", "api_routes",
		"force_json_errors", "upstream_timeout", "flush_interval")
}
