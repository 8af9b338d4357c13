package migrate

import (
	"net/url"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/doorward/doorward/internal/access"
)

// Pomerium reads the configuration of Pomerium, with its policies in PPL.
func Pomerium(text []byte) (*Result, error) {
	root, err := parseYAML(text)
	if err != nil {
		return nil, err
	}
	p := &pomerium{draft: newDraft("Pomerium"), lost: map[string]bool{}}
	p.read(newSection(root, "the file", &err))
	if err != nil {
		return nil, err
	}
	return p.finish()
}

type pomerium struct {
	*draft
	id string
	// lost are the hosts of which a route could not be written: its requests must
	// not be answered by another one.
	lost map[string]bool
}

func (p *pomerium) read(s *section) {
	p.provider(s)
	routes := s.sections("routes")
	if routes == nil {
		routes = s.sections("policy") // as older versions call it
	}
	for _, r := range routes {
		p.route(r)
	}
	for i := range p.routes {
		if host, _, _ := origin(p.routes[i].From); p.lost[host] {
			p.close(&p.routes[i])
		}
	}
	if lifetime, err := time.ParseDuration(s.text("cookie_expire")); err == nil && lifetime > 0 {
		p.lifetime = duration(lifetime)
	}
	p.drop(s, "listeners and certificates are written anew under `server`", "address", "grpc_address", "certificates", "certificate_file", "certificate_key_file", "certificate",
		"certificate_key", "autocert", "autocert_dir", "autocert_use_staging", "insecure_server", "http_redirect_addr", "metrics_address", "dns_lookup_family", "services", "codec_type")
	p.drop(s, "secrets and keys are made anew", "shared_secret", "shared_secret_file", "cookie_secret", "cookie_secret_file", "signing_key", "signing_key_file")
	p.drop(s, "sessions are kept in Doorward's own store", "databroker_storage_type", "databroker_storage_connection_string", "databroker", "cookie_name", "cookie_domain", "cookie_same_site")
	p.drop(s, "logs and traces are set under `log` and by OTEL_* variables", "log_level", "proxy_log_level", "tracing_provider", "tracing_sample_rate", "access_log_fields", "authorize_log_fields", "branding")
	p.drop(s, "applications verify Doorward-Assertion; `headers` of a route sets plain headers", "jwt_claims_headers", "jwt_issuer_format", "pass_identity_headers")
	for _, key := range []string{"downstream_mtls", "client_ca", "client_ca_file"} {
		if s.take(key) != nil {
			p.leave(s.at(key), Differs, key, "a client certificate was demanded of everybody: name the authority in server.tls.client_ca and require a device")
		}
	}
	p.leaveRest(s, "")
}

func (p *pomerium) provider(s *section) {
	p.id = "corp"
	made := provider{id: p.id, secretEnv: "POMERIUM_IDP_CLIENT_SECRET", issuer: s.text("idp_provider_url"), clientID: s.text("idp_client_id"), scopes: s.texts("idp_scopes")}
	kind := s.text("idp_provider")
	s.ignore("idp_client_secret", "idp_client_secret_file")
	if made.issuer == "" && kind == "google" {
		made.issuer = "https://accounts.google.com"
	}
	made.issuer = p.issuerOr(made.issuer, "idp_provider "+kind, s.at("idp_provider"))
	if made.clientID == "" {
		made.clientID = "doorward"
		p.leave(s.at("idp_client_id"), ToDo, "idp_client_id", "write the id under which Doorward is registered")
	}
	if from, _, ok := origin(s.text("authenticate_service_url")); ok {
		p.loginHost = from
		p.leave(s.at("authenticate_service_url"), ToDo, "authenticate_service_url", "register %s/.doorward/callback with the provider", from)
	}
	p.leave(0, ToDo, "client secret", "set the environment variable %s; the secret itself is not copied", made.secretEnv)
	p.providers = append(p.providers, made)
}

// route reads one route. One that cannot be taken over is made nonetheless, and
// closed, so that no wider route answers for it.
func (p *pomerium) route(s *section) {
	from, behind, ok := origin(s.text("from"))
	if !ok || strings.Trim(behind, "/") != "" {
		p.leave(s.at("from"), Closed, "route "+s.text("from"), "its address is no plain http or https origin")
		return
	}
	prefix, path := s.text("prefix"), s.text("path")
	if regex := s.text("regex"); regex != "" {
		p.leave(s.at("regex"), Closed, "route "+from, "its regex %s is no part of an address here, and all routes of the host are closed until you write one for it", regex)
		p.lost[from] = true
		return
	}
	if path != "" {
		p.leave(s.at("path"), Tighter, "route "+from, "it answered for %s alone; what lies below is refused", path)
		prefix = path
	}
	if prefix = strings.TrimSuffix(prefix, "/"); prefix != "" && !globText(prefix) {
		p.leave(s.at("prefix"), Closed, "route "+from, "its prefix %s cannot be written, and all routes of the host are closed until you write one for it", prefix)
		p.lost[from] = true
		return
	}
	rt := p.routeFor(from + prefix)
	if len(rt.To) > 0 || len(rt.Allow) > 0 {
		p.leave(s.line(), Closed, "route "+from+prefix, "another route has that address")
		return
	}
	p.forwarding(s, rt)
	s.ignore("name", "id", "description", "logo_url", "depends_on")
	p.access(s, rt)
	if path != "" {
		only(rt, path)
	}
	for i := range p.routes {
		if host, shorter, _ := origin(p.routes[i].From); host == from && strings.TrimSuffix(shorter, "/") != prefix && strings.HasPrefix(prefix+"/", strings.TrimSuffix(shorter, "/")+"/") {
			p.leave(s.line(), Differs, "route "+rt.From, "an earlier route is about the same requests; here the longest path wins, in whatever order routes stand")
			break
		}
	}
	p.leaveRest(s, rt.From+": ")
}

// only limits a route to one path.
func only(rt *access.Route, path string) {
	for i := range rt.Allow {
		if r := &rt.Allow[i]; len(r.Paths) == 0 && r.When == "" {
			r.Paths = []string{path}
		} else {
			require(r, "request.path == "+celText(path))
		}
	}
	for i := range rt.Public {
		rt.Public[i].Paths = []string{path}
	}
}

func (p *pomerium) forwarding(s *section, rt *access.Route) {
	var rewritten bool
	for _, to := range s.texts("to") {
		to, _, weighted := strings.Cut(to, ",")
		u, err := url.Parse(to)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "h2c" || !p.upstream(rt, to, s.at("to")) {
			p.leave(s.at("to"), ToDo, "to "+to, "only http, https and h2c upstreams are taken over")
			continue
		}
		if weighted {
			p.leave(s.at("to"), Dropped, "to "+to, "upstreams have no weights")
		}
		rewritten = rewritten || u.Path != "" && u.Path != "/"
	}
	for _, key := range []string{"prefix_rewrite", "regex_rewrite_pattern", "regex_rewrite_substitution", "host_rewrite", "host_rewrite_header", "host_path_regex_rewrite_pattern", "host_path_regex_rewrite_substitution"} {
		if s.take(key) != nil {
			p.leave(s.at(key), ToDo, key+" of "+rt.From, "write it into strip_prefix and add_prefix, or host; anything but a prefix is passed on as it is")
		}
	}
	if rewritten {
		p.leave(s.at("to"), ToDo, "to of "+rt.From, "write the upstream's path into add_prefix")
	}
	rt.PreserveHost, rt.WebSocket = s.flag("preserve_host_header"), s.flag("allow_websockets")
	if timeout, err := time.ParseDuration(s.text("timeout")); err == nil && timeout > 0 {
		rt.Timeout = access.Duration(timeout)
	}
	if s.flag("pass_identity_headers") {
		p.leave(s.at("pass_identity_headers"), Differs, "pass_identity_headers of "+rt.From, "the application has to verify Doorward-Assertion instead of X-Pomerium-Jwt-Assertion")
	}
	if s.flag("tls_skip_verify") {
		p.leave(s.at("tls_skip_verify"), Tighter, "tls_skip_verify of "+rt.From, "certificates of upstreams are always verified: name their authority in upstream_tls.ca")
	}
	for _, key := range []string{"tls_custom_ca", "tls_custom_ca_file", "tls_client_cert", "tls_client_key", "tls_client_cert_file", "tls_client_key_file", "tls_server_name", "tls_upstream_server_name"} {
		if s.take(key) != nil {
			p.leave(s.at(key), ToDo, key+" of "+rt.From, "write it into upstream_tls")
		}
	}
	p.drop(s, "headers from anything but facts about the visitor are not set; set them in the application", "set_request_headers", "remove_request_headers", "rewrite_response_headers")
	p.drop(s, "it has no counterpart", "idle_timeout", "allow_spdy", "lb_config", "health_checks", "outlier_detection", "enable_google_cloud_serverless_authentication", "kubernetes_service_account_token", "kubernetes_service_account_token_file")
	for _, key := range []struct{ theirs, ours string }{{"redirect", "redirect, in place of to"}, {"response", "respond, in place of to"}, {"set_response_headers", "response_headers"}} {
		if s.take(key.theirs) != nil {
			p.leave(s.at(key.theirs), ToDo, key.theirs+" of "+rt.From, "write it into %s", key.ours)
		}
	}
}

// access reads who may use a route, in the old keys and in PPL.
func (p *pomerium) access(s *section, rt *access.Route) {
	if s.flag("allow_public_unauthenticated_access") {
		p.public(rt)
	}
	rt.Preflight = s.flag("cors_allow_preflight")
	if s.flag("allow_any_authenticated_user") {
		p.allow(rt, access.Rule{Name: "everybody", AnyUser: true})
	}
	for _, domain := range s.texts("allowed_domains") {
		rule := access.Rule{Name: "domain-" + domain, Providers: []string{p.id}}
		require(&rule, domainTerm(domain))
		p.allow(rt, rule)
	}
	for _, email := range s.texts("allowed_users") {
		rule := access.Rule{Name: "user-" + email, Providers: []string{p.id}}
		require(&rule, emailTerm(email))
		p.allow(rt, rule)
	}
	for _, group := range s.texts("allowed_groups") {
		p.allow(rt, access.Rule{Name: "group-" + group, Groups: []string{p.group(p.id, group)}})
	}
	claims := s.section("allowed_idp_claims")
	for _, claim := range claims.keys() {
		p.allow(rt, p.claimRule(claim, claims.texts(claim)))
	}
	for _, sub := range s.sections("sub_policies") {
		p.access(sub, rt)
		p.leaveRest(sub, rt.From+": sub_policies.")
	}
	if n := s.take("policy"); n != nil {
		entries := []*yaml.Node{n}
		if n.Kind == yaml.SequenceNode {
			entries = n.Content
		}
		for _, entry := range entries {
			block := newSection(entry, "a policy", s.err)
			p.action(block, "allow", rt)
			p.action(block, "deny", rt)
			p.leaveRest(block, rt.From+": policy.")
		}
	}
}

func (p *pomerium) claimRule(claim string, values []string) access.Rule {
	if claim == "groups" {
		rule := access.Rule{Name: "claim-groups"}
		for _, v := range values {
			rule.Groups = append(rule.Groups, p.group(p.id, v))
		}
		return rule
	}
	return access.Rule{Name: "claim-" + claim, Providers: []string{p.id}, Claims: map[string][]string{claim: values}}
}

func (p *pomerium) allow(rt *access.Route, rule access.Rule) {
	rule.Name = named(rt, rule.Name)
	rt.Allow = append(rt.Allow, rule)
}

func (p *pomerium) public(rt *access.Route) {
	_, prefix, _ := origin(rt.From)
	rt.Public = append(rt.Public, access.Public{Name: named(rt, "everything"), Methods: []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}, Paths: below(prefix).globs})
	p.leave(0, Differs, "public access of "+rt.From, "it passes without login, for seven methods; deny rules do not hold there")
}

func domainTerm(domain string) string {
	return "user.email_verified && user.email.endsWith(" + celText("@"+strings.ToLower(domain)) + ")"
}

func emailTerm(email string) string {
	return "user.email_verified && user.email == " + celText(email)
}

// action reads the allow or the deny block of a policy. A block is a list of
// criteria under and, or, not or nor.
func (p *pomerium) action(block *section, action string, rt *access.Route) {
	body := block.section(action)
	for _, operator := range body.keys() {
		var rules []access.Rule
		ok := true
		at, what := body.at(operator), rt.From+": "+action+"."+operator
		criteria := body.sections(operator)
		switch operator {
		case "and":
			rule := access.Rule{Name: action}
			for _, c := range criteria {
				ok = p.criterion(c, &rule, what) && ok
			}
			rules = append(rules, rule)
		case "or":
			for _, c := range criteria {
				rule := access.Rule{Name: action}
				if p.criterion(c, &rule, what) {
					rules = append(rules, rule)
					continue
				}
				// One of several ways in can be left out; one of several reasons to
				// refuse cannot.
				ok = ok && action == "allow"
			}
		default:
			ok = false
			p.leave(at, closedOr(action), what, "only and / or are taken over: write it with unless")
		}
		if !ok {
			p.dropRule(action, at, what, rt)
			continue
		}
		for _, rule := range rules {
			p.place(action, rule, rt, at, what)
		}
	}
	p.leaveRest(body, rt.From+": "+action+".")
}

func closedOr(action string) Effect {
	if action == "deny" {
		return Tighter
	}
	return Closed
}

// dropRule leaves out a rule. Without one of its deny rules, nobody may use a
// route: whom it kept out cannot be told from the others.
func (p *pomerium) dropRule(action string, line int, what string, rt *access.Route) {
	if action == "allow" {
		p.leave(line, Closed, what, "the rule is left out")
		return
	}
	p.close(rt)
	p.leave(line, Closed, what, "the rule cannot be written, and without it the others would let too many in: the route is closed")
}

// place puts a rule into the route. AnyUser stands for the criterion accept.
func (p *pomerium) place(action string, rule access.Rule, rt *access.Route, line int, what string) {
	accepts := rule.AnyUser
	rule.AnyUser = false
	who := len(rule.Groups)+len(rule.Users)+len(rule.Providers)+len(rule.Claims) > 0
	limited := len(rule.Methods)+len(rule.Paths)+len(rule.Networks)+len(rule.When) > 0
	switch {
	case action == "deny" && !who && !limited:
		p.close(rt)
		p.leave(line, Closed, what, "it refuses everybody")
	case action == "deny":
		rule.Name = named(rt, "deny")
		rt.Deny = append(rt.Deny, rule)
	case who:
		p.allow(rt, rule)
	case accepts && !limited:
		p.public(rt)
	default:
		// Criteria on the request alone admit everybody, also without login.
		rule.AnyUser = true
		p.allow(rt, rule)
		p.leave(line, Tighter, what, "it admitted requests without login; here a login is required")
	}
}
