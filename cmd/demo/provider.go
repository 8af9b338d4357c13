package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/doorward/doorward/internal/testidp"
)

// startProvider runs the sample identity provider and gives Doorward's client
// secret a file of its own.
func startProvider(e *estate) (stop func(), err error) {
	secret := rand.Text()
	if err := replaceFile(filepath.Join(e.state, "client-secret"), []byte(secret+"\n")); err != nil {
		return nil, fmt.Errorf("the client secret: %w", err)
	}
	dialer := net.Dialer{Timeout: 5 * time.Second}
	provider, err := testidp.New(testidp.Options{
		Issuer: "http://" + e.idpAddr,
		Users:  testidp.DemoUsers(),
		Hints:  true,
		// Refresh tokens outlive a restart of the demo, as sessions do.
		StateFile: filepath.Join(e.state, "provider.json"),
		// Only browsers know where names under localhost are.
		Transport: &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, e.addr)
		}},
		Clients: []testidp.Client{{
			ID: "doorward", Secret: secret,
			RedirectURI:   testidp.Exactly(e.url("auth") + "/.doorward/callback"),
			PostLogoutURI: testidp.Exactly(e.url("auth") + "/.doorward/logout"),

			BackchannelLogoutURI: e.url("auth") + "/.doorward/backchannel-logout",
		}, {
			ID: "doorward-cli", RedirectURI: testidp.Loopback("/callback"), // doorward login
		}},
		DeviceInterval: time.Second,
	})
	if err != nil {
		return nil, err
	}
	_, stop, err = provider.Start(e.idpAddr)
	if err != nil {
		return nil, fmt.Errorf("the identity provider: %w", err)
	}
	return stop, nil
}
