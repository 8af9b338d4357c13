package apiserver

import (
	"bufio"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// door is the real doorward, with the service account that the manifests give it
// and a route for one service account.
type door struct{ url string }

func startDoor(t *testing.T) *door {
	t.Helper()
	dir := t.TempDir()
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello %s", r.Header.Get("X-User"))
	}))
	t.Cleanup(app.Close)
	if err := os.WriteFile(filepath.Join(dir, "token"), []byte(kube.token(t, "doorward/doorward")), 0o600); err != nil {
		t.Fatal(err)
	}
	addr := "127.0.0.1:" + freePort()
	config := filepath.Join(dir, "doorward.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, `version: 1
server: {listen: %q, admin: {listen: "127.0.0.1:%s"}}
sessions: {store: {memory: true}}
audit: {to: [{file: {path: audit.jsonl}}]}
providers:
  - {id: cluster, issuer: kubernetes, audiences: [doorward], ca: %q, kubernetes: {review: true, api: %q, token_file: token}}
routes:
  - id: orders
    from: "http://%s"
    to: [%q]
    headers: {X-User: user}
    allow: [{name: invoicer, providers: [cluster], service_accounts: [calls/invoicer]}]
`, addr, freePort(), kube.ca, kube.url, addr, app.URL), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(kube.doorward, "serve", "--config", config)
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	serving := make(chan bool, 1)
	var printed strings.Builder
	ended := make(chan bool)
	go func() {
		defer close(ended)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			fmt.Fprintln(&printed, lines.Text())
			if strings.Contains(lines.Text(), `"serving"`) {
				serving <- true
			}
		}
		close(serving)
	}()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		<-ended
		cmd.Wait()
		if t.Failed() {
			t.Log(printed.String())
		}
	})
	if !<-serving {
		t.Fatal("doorward does not serve")
	}
	return &door{"http://" + addr + "/"}
}

// ask shows a token, and returns the status and what was said.
func (d *door) ask(t *testing.T, token string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, d.url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

func (d *door) wants(t *testing.T, what, token string, status int, text string) {
	t.Helper()
	if got, body := d.ask(t, token); got != status || !strings.Contains(body, text) {
		t.Errorf("%s: %d %s, want %d %s", what, got, body, status, text)
	}
}

// reviewed asks the API server itself, without Doorward.
func reviewed(t *testing.T, token string) bool {
	t.Helper()
	var answer struct {
		Status struct {
			Authenticated bool
			Audiences     []string
		}
	}
	kube.post(t, "/apis/authentication.k8s.io/v1/tokenreviews", map[string]any{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
		"spec": map[string]any{"token": token, "audiences": []string{"doorward"}}}, &answer)
	return answer.Status.Authenticated && len(answer.Status.Audiences) > 0
}

// expired is the token as this cluster would have issued it two hours ago, signed
// with the cluster's own key: the shortest that it issues lives ten minutes.
func expired(t *testing.T, token string) string {
	t.Helper()
	parts := strings.Split(token, ".")
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := json.Unmarshal(payload, &claims); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"iat", "nbf", "exp"} {
		claims[name] = int64(claims[name].(float64)) - 7200
	}
	if payload, err = json.Marshal(claims); err != nil {
		t.Fatal(err)
	}
	signed := parts[0] + "." + base64.RawURLEncoding.EncodeToString(payload)
	sum := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, kube.signing, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// A pod's token passes where it is made for Doorward and its service account
// exists. Doorward has no more rights than the manifests give it.
func TestTokenReview(t *testing.T) {
	if status, _ := kube.get("/api/v1/namespaces/doorward"); status == http.StatusNotFound { // this test alone
		for _, name := range []string{"00-namespace.yaml", "20-access.yaml"} {
			text, err := os.ReadFile(filepath.Join("../kubernetes/standalone", name))
			if err != nil {
				t.Fatal(err)
			}
			kube.apply(t, text, "")
		}
	}
	kube.restricted(t, "calls")
	for _, name := range []string{"invoicer", "other"} {
		kube.post(t, fmt.Sprintf(resources["ServiceAccount"], "calls"), map[string]any{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": map[string]any{"name": name}}, nil)
	}
	d := startDoor(t)
	good := kube.token(t, "calls/invoicer", "doorward")
	d.wants(t, "the right audience", good, 200, "hello cluster:system:serviceaccount:calls:invoicer")
	d.wants(t, "another service account", kube.token(t, "calls/other", "doorward"), 403, "not_allowed")
	d.wants(t, "another audience", kube.token(t, "calls/invoicer", "billing"), 401, "token_audience")
	d.wants(t, "for the API server", kube.token(t, "calls/invoicer"), 401, "token_audience")
	old := expired(t, good)
	d.wants(t, "expired", old, 401, "token_expired")
	if !reviewed(t, good) || reviewed(t, old) {
		t.Error("the API server itself thinks otherwise")
	}

	fresh := kube.token(t, "calls/invoicer", "doorward") // Doorward has not seen it
	if status, body, _, err := kube.do(http.MethodDelete, fmt.Sprintf(resources["ServiceAccount"], "calls")+"/invoicer", "", nil); err != nil || status != http.StatusOK {
		t.Fatalf("%d %v %s", status, err, body)
	}
	d.wants(t, "a deleted service account", fresh, 401, "token_revoked")
	// One that was accepted a moment ago is relied on for 30s, by the API server for 10s.
	deleted := time.Now()
	for {
		status, body := d.ask(t, good)
		if status == 401 && strings.Contains(body, "token_revoked") {
			break
		}
		if status != 200 || time.Since(deleted) > patience {
			t.Fatalf("%d %s", status, body)
		}
		time.Sleep(250 * time.Millisecond)
	}
	t.Logf("a token in use was refused %.0f s after its service account was deleted", time.Since(deleted).Seconds())
}
