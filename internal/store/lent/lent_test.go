package lent_test

import (
	"context"
	"errors"
	"net"
	"net/rpc"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/store"
	"github.com/doorward/doorward/internal/store/lent"
	"github.com/doorward/doorward/internal/store/storetest"
)

// borrow lends a store to the same process.
func borrow(t *testing.T, kept store.Store) (*lent.Borrowed, net.Conn) {
	t.Helper()
	here, there := net.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	server := rpc.NewServer()
	if err := server.RegisterName(lent.Service, lent.NewLender(ctx, kept)); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.ServeConn(there)
	}()
	client := rpc.NewClient(here)
	t.Cleanup(func() {
		cancel()
		client.Close()
		<-done
		kept.Close()
	})
	return lent.Borrow(client), here
}

// What is borrowed keeps every promise of a store, since a session does not care
// who keeps it.
func TestBorrowedIsAStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T, now func() time.Time) store.Store {
		b, _ := borrow(t, store.NewMemory(now))
		return b
	})
}

// The keeper is gone: nothing is concluded about any item, and watchers are told
// that they see nothing any more.
func TestLenderThatIsGone(t *testing.T) {
	b, conn := borrow(t, store.NewMemory(nil))
	changes, err := b.Watch(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	for range changes {
	}
	if _, err := b.Get(t.Context(), "a"); !errors.Is(err, store.ErrUnavailable) {
		t.Error(err)
	}
	if _, err := b.Put(t.Context(), store.Item{Key: "a"}); !errors.Is(err, store.ErrUnavailable) {
		t.Error(err)
	}
	for _, err := range b.List(t.Context(), "") {
		if !errors.Is(err, store.ErrUnavailable) {
			t.Error(err)
		}
	}
	if _, err := b.Watch(t.Context(), ""); !errors.Is(err, store.ErrUnavailable) {
		t.Error(err)
	}
}
