package session

import (
	"bytes"
	"testing"
	"time"

	"github.com/doorward/doorward/internal/store"
)

// Whoever can write the store can neither make up a value, nor change one, nor
// move one to another name, folder or deployment.
func TestVaultOpensOnlyWhatItSealedForThatName(t *testing.T) {
	ctx, kept := t.Context(), store.NewMemory(time.Now)
	defer kept.Close()
	key := func(b byte) []byte { return bytes.Repeat([]byte{b}, 32) }
	v := NewVault(kept, "device", key(1))
	later := time.Now().Add(time.Hour)
	if value, err := v.Get(ctx, "a"); value != nil || err != nil {
		t.Fatalf("nothing there: %q, %v", value, err)
	}
	for _, name := range []string{"a", "b"} {
		if err := v.Put(ctx, name, []byte("value of "+name), later); err != nil {
			t.Fatal(err)
		}
	}
	if value, err := v.Get(ctx, "a"); string(value) != "value of a" || err != nil {
		t.Fatalf("%q, %v", value, err)
	}
	if _, err := NewVault(kept, "device", key(2)).Get(ctx, "a"); err == nil {
		t.Error("another key opened it")
	}
	item, err := kept.Get(ctx, "device/a")
	if err != nil || bytes.Contains(item.Value, []byte("value")) {
		t.Fatalf("it lies open: %q, %v", item.Value, err)
	}
	overwrite := func(key string, value []byte) {
		t.Helper()
		if _, err := kept.Put(ctx, store.Item{Key: key, Value: value, Version: store.Any}); err != nil {
			t.Fatal(err)
		}
	}
	overwrite("device/b", item.Value)
	overwrite("other/a", item.Value)
	if _, err := v.Get(ctx, "b"); err == nil {
		t.Error("a value was moved to another name")
	}
	if _, err := NewVault(kept, "other", key(1)).Get(ctx, "a"); err == nil {
		t.Error("a value was moved to another folder")
	}
	for n := range item.Value {
		changed := bytes.Clone(item.Value)
		changed[n] ^= 1
		overwrite("device/a", changed)
		if _, err := v.Get(ctx, "a"); err == nil {
			t.Fatalf("byte %d was changed, and nobody noticed", n)
		}
	}
	overwrite("device/a", nil)
	if _, err := v.Get(ctx, "a"); err == nil {
		t.Error("an empty value was opened")
	}
}
