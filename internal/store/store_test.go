package store_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/store"
	"github.com/doorward/doorward/internal/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMemory(t *testing.T) {
	storetest.Run(t, func(_ *testing.T, now func() time.Time) store.Store { return store.NewMemory(now) })
}

func TestFile(t *testing.T) {
	storetest.Run(t, func(t *testing.T, now func() time.Time) store.Store {
		s, err := store.OpenFile(filepath.Join(t.TempDir(), "state.db"), now)
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}

func TestOpenPicksTheBackend(t *testing.T) {
	s, err := store.Open(store.Config{Memory: true}, nil)
	if _, ok := s.(*store.Memory); !ok || err != nil {
		t.Errorf("memory: %T, %v", s, err)
	}
	path := filepath.Join(t.TempDir(), "state.db")
	s, err = store.Open(store.Config{File: store.FileConfig{Path: path}}, nil)
	if _, ok := s.(*store.File); !ok || err != nil {
		t.Fatalf("file: %T, %v", s, err)
	}
	s.Close()
	t.Setenv("STATE_DIRECTORY", filepath.Dir(path)+":/somewhere/else")
	s, err = store.Open(store.Config{}, nil)
	if _, ok := s.(*store.File); !ok || err != nil {
		t.Fatalf("default: %T, %v", s, err)
	}
	s.Close()
	if made, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "doorward.db")); len(made) != 1 {
		t.Error("the default is not in the first STATE_DIRECTORY")
	}
	s, err = store.Open(store.Config{File: store.FileConfig{Path: "/proc/nowhere/deep/state.db"}}, nil)
	if s != nil || err == nil {
		t.Errorf("a store that could not be opened: %v, %v", s, err)
	}
}

func TestConfigFaults(t *testing.T) {
	for _, c := range []struct {
		cfg  store.Config
		want []string
	}{
		{store.Config{}, nil},
		{store.Config{Memory: true}, nil},
		{store.Config{File: store.FileConfig{Path: "/x/y.db"}}, nil},
		{store.Config{Memory: true, File: store.FileConfig{Path: "/x/"}}, []string{"store: the store is file and memory at once", `store.file.path: "/x/" is a folder`}},
		{store.Config{File: store.FileConfig{Path: "a\x00b"}}, []string{"store.file.path: the path contains a zero byte"}},
	} {
		f := access.NewFaults("store")
		c.cfg.Validate(f)
		var got []string
		for _, fault := range f.List() {
			got = append(got, fault.Path+": "+fault.Text)
		}
		if strings.Join(got, "\n") != strings.Join(c.want, "\n") {
			t.Errorf("%+v: %q, want %q", c.cfg, got, c.want)
		}
	}
}
