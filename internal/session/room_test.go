package session

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/store"
)

// employee is a login as a company has thousands of: they differ in who it is, and
// have the rest in common.
func employee(i int) Start {
	return Start{Origin: appHost, Identity: access.Identity{
		Provider: "corp", Issuer: "https://login.corp.example.com", Subject: fmt.Sprintf("4f1c2d%08d", i), Name: fmt.Sprintf("User Number %d", i),
		Email: fmt.Sprintf("user-%d@corp.example.com", i), EmailVerified: true, Username: fmt.Sprintf("user-%d", i),
		Groups: []string{"group-0", "group-1", "group-2", "group-3", "group-4"},
		Login:  access.Login{ACR: "mfa", AMR: []string{"otp", "pwd"}},
	}}
}

// heap returns the bytes and the objects that are in use.
func heap() (bytes, objects float64) {
	runtime.GC()
	runtime.GC() // what the first one let go of
	var now runtime.MemStats
	runtime.ReadMemStats(&now)
	return float64(now.HeapAlloc), float64(now.HeapObjects)
}

// BenchmarkRoom shows what a session takes: in the memory store, and once more in
// the cache, where it is in the form that requests see.
func BenchmarkRoom(b *testing.B) {
	const many = 20_000
	for b.Loop() {
		s := store.NewMemory(nil)
		m, err := New(Options{Store: s})
		if err != nil {
			b.Fatal(err)
		}
		secrets := make([]string, many)
		for i := range secrets {
			secrets[i] = fmt.Sprintf("%43d", i) // so that the list takes no more later
		}
		bytes, objects := heap()
		for i := range secrets {
			if secrets[i], _, err = m.Start(b.Context(), employee(i)); err != nil {
				b.Fatal(err)
			}
		}
		stored, items := heap()
		now := time.Now()
		for _, secret := range secrets {
			if _, err := m.Load(b.Context(), secret, appHost, now); err != nil {
				b.Fatal(err)
			}
		}
		cached, parts := heap()
		b.ReportMetric((stored-bytes)/many, "B/stored")
		b.ReportMetric((items-objects)/many, "objects/stored")
		b.ReportMetric((cached-stored)/many, "B/cached")
		b.ReportMetric((parts-items)/many, "objects/cached")
		m.Close()
		s.Close()
	}
}
