package e2e

import (
	"context"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/doorward/doorward/internal/access"
)

// grpcCases are the interoperability tests that gRPC's own client runs without
// credentials of a cloud
// (https://github.com/grpc/grpc/blob/master/doc/interop-test-descriptions.md).
var grpcCases = []string{
	"empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "empty_stream", "timeout_on_sleeping_server",
	"cancel_after_begin", "cancel_after_first_response", "status_code_and_message", "special_status_message", "custom_metadata",
	"unimplemented_method", "unimplemented_service",
}

// TestGRPCInterop: gRPC's own client passes its interoperability tests on gRPC's own
// server through Doorward, over TLS, with an upstream with and without TLS, in the
// open and as a machine with a token that rules are about. Every call leaves its
// record.
func TestGRPCInterop(t *testing.T) {
	t.Parallel()
	programs := buildModule(t, "grpcinterop", ".", "tool")
	dir, address, plain, secure := t.TempDir(), freeAddress(t), freeAddress(t), freeAddress(t)
	ca := newAuthority(t, "servers")
	ca.certify(dir, 1, "open-plain.localhost", "open-secure.localhost", "closed-plain.localhost", "closed-secure.localhost")
	authority := writeFile(t, dir, "ca.pem", pemOf("CERTIFICATE", ca.cert.Raw))
	for _, args := range [][]string{{plain}, {secure, dir + "/tls.crt", dir + "/tls.key"}} {
		startCommand(t, exec.Command(filepath.Join(programs, "grpcinterop"), args...)).waitFor("listening", 1)
	}

	issuer, token := machine(t)
	open, closed := `public: [{name: everything, methods: [POST], paths: ["/**"]}]`, `allow: [{name: batch, client_ids: ["services:batch"]}]`
	h2c, https := fmt.Sprintf("to: [\"h2c://%s\"]", plain), fmt.Sprintf("to: [\"https://%s\"], upstream_tls: {ca: ca.pem}", secure)
	var routes strings.Builder
	for id, to := range map[string][]string{"open-plain": {h2c, open}, "open-secure": {https, open}, "closed-plain": {h2c, closed}, "closed-secure": {https, closed}} {
		fmt.Fprintf(&routes, "\n  - {id: %[1]s, from: \"https://%[1]s.localhost\", %s}", id, strings.Join(to, ", "))
	}
	config := writeFile(t, dir, "doorward.yaml", fmt.Sprintf(`version: 1
server: {listen: %q, admin: {listen: %q}, tls: {certificates: [{cert: tls.crt, key: tls.key}]}}
sessions: {store: {memory: true}}
audit: {to: [{file: {path: audit.jsonl}}], required: true}
log: {format: text}
providers: [{id: services, issuer: %q, interactive: false, audiences: [orders-api]}]
routes: %s
`, address, freeAddress(t), issuer, routes.String()))
	door := start(t, "doorward", "serve", "--config", config)
	door.waitFor("serving", 1)

	call := func(host, name string, more ...string) (printed string, err error) {
		ctx, cancel := context.WithTimeout(t.Context(), patience) // the client has none
		defer cancel()
		cmd := exec.CommandContext(ctx, filepath.Join(programs, "client"), append([]string{
			"--server_host", "127.0.0.1", "--server_port", port(address), "--server_host_override", host,
			"--use_tls", "--use_test_ca", "--ca_file", authority, "--test_case", name}, more...)...)
		text, err := cmd.CombinedOutput()
		return string(text), err
	}
	for _, at := range []string{"open-plain", "open-secure", "closed-plain", "closed-secure"} {
		t.Run(at, func(t *testing.T) {
			var more []string
			if strings.HasPrefix(at, "closed") {
				more = []string{"--additional_metadata", "authorization:Bearer " + token}
				if printed, err := call(at+".localhost", "empty_unary"); err == nil || !strings.Contains(printed, "code = Unauthenticated") {
					t.Errorf("without a token: %v\n%s", err, printed)
				}
			}
			passed := 0
			for _, name := range grpcCases {
				if printed, err := call(at+".localhost", name, more...); err != nil {
					t.Errorf("%s: %v\n%s", name, err, printed)
				} else {
					passed++
				}
			}
			t.Logf("%s: %d of %d cases passed", at, passed, len(grpcCases))
		})
	}
	door.stop()
	records := map[string]int{}
	for _, e := range events(t, filepath.Join(dir, "audit.jsonl")) {
		if e.Kind == access.EventDecision {
			records[fmt.Sprint(e.Request.Route, " ", e.Request.Identity.Provider, " ", e.Decision.Reason)]++
		}
	}
	// The cases are sixteen calls; one is given up within a millisecond and one at
	// once, which may be before anything was sent.
	for _, want := range []string{"open-plain  public", "open-secure  public", "closed-plain services allowed", "closed-secure services allowed"} {
		if n := records[want]; n < 14 || n > 16 {
			t.Errorf("%d records of %q", n, want)
		}
		delete(records, want)
	}
	if want := map[string]int{"closed-plain  login_required": 1, "closed-secure  login_required": 1}; !maps.Equal(records, want) {
		t.Errorf("other records: %v, want %v", records, want)
	}
}
