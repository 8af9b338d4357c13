package store_test

import (
	"errors"
	"net"
	"net/rpc"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/store"
	"github.com/doorward/doorward/internal/store/lent"
	"github.com/doorward/doorward/internal/store/storetest"
)

func TestMoving(t *testing.T) {
	storetest.Run(t, func(t *testing.T, now func() time.Time) store.Store { return store.NewMoving(store.NewMemory(now)) })
}

// A state file is given up and taken back while it is in use, and goes to another
// keeper in the end: no call fails, no increment is lost, a listing sees everything
// once, and watchers are told.
func TestMoveDuringUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	open := func() store.Store {
		s, err := store.OpenFile(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	m := store.NewMoving(open())
	defer m.Close()
	ctx := t.Context()
	const items = 200
	for i := range items {
		if _, err := m.Put(ctx, store.Item{Key: "item/" + strconv.Itoa(1000+i)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.Put(ctx, store.Item{Key: "n", Value: []byte("0")}); err != nil {
		t.Fatal(err)
	}
	changes, err := m.Watch(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	lost, watched := 0, make(chan struct{})
	go func() {
		defer close(watched)
		for c := range changes {
			if c.Lost {
				lost++
			}
		}
	}()
	stop := make(chan struct{})
	var using sync.WaitGroup
	rounds := make([]int, 3)
	for w := range rounds[:2] {
		using.Go(func() {
			for ; ; rounds[w]++ {
				select {
				case <-stop:
					return
				default:
				}
				item, err := m.Get(ctx, "n")
				if err != nil {
					t.Error(err)
					return
				}
				n, _ := strconv.Atoi(string(item.Value))
				item.Value = strconv.AppendInt(nil, int64(n+1), 10)
				if _, err := m.Put(ctx, item); errors.Is(err, store.ErrConflict) {
					rounds[w]--
				} else if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	using.Go(func() {
		for ; ; rounds[2]++ {
			select {
			case <-stop:
				return
			default:
			}
			n, last := 0, ""
			for item, err := range m.List(ctx, "item/") {
				if err != nil || item.Key <= last {
					t.Errorf("%q after %q: %v", item.Key, last, err)
					return
				}
				n, last = n+1, item.Key
			}
			if n != items {
				t.Errorf("%d items listed", n)
				return
			}
		}
	})
	for range 10 { // it is given up, and taken back
		if err := m.Leave(); err != nil {
			t.Fatal(err)
		}
		m.Arrive(open())
		if _, err := m.Get(ctx, "n"); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Leave(); err != nil { // and goes to somebody else
		t.Fatal(err)
	}
	kept := open()
	defer kept.Close()
	here, there := net.Pipe()
	server := rpc.NewServer()
	if err := server.RegisterName(lent.Service, lent.NewLender(ctx, kept)); err != nil {
		t.Fatal(err)
	}
	go server.ServeConn(there)
	client := rpc.NewClient(here)
	defer client.Close()
	m.Arrive(lent.Borrow(client))
	for range 50 {
		if _, err := m.Get(ctx, "item/1000"); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	using.Wait()
	item, err := m.Get(ctx, "n")
	if err != nil || string(item.Value) != strconv.Itoa(rounds[0]+rounds[1]) {
		t.Errorf("%s increments were kept of %d, %v", item.Value, rounds[0]+rounds[1], err)
	}
	t.Logf("%d increments, %d listings", rounds[0]+rounds[1], rounds[2])
	m.Close()
	<-watched
	if lost == 0 {
		t.Error("the watcher was never told that it lost something")
	}
}
