package store

import "testing"

// After a failover the versions of the new master may begin below what a watcher
// has seen: its clock is behind, and it lost the last changes. Nothing that
// happens from then on is taken for old.
func TestWatchersSeeWhatComesAfterALoss(t *testing.T) {
	var h hub
	changes, err := h.watch(t.Context(), "", 100)
	if err != nil {
		t.Fatal(err)
	}
	h.publish(Change{Key: "old", Version: 100})
	h.lost()
	h.publish(Change{Key: "k", Version: 50})
	h.close(errClosed)
	var got []Change
	for c := range changes {
		got = append(got, c)
	}
	if len(got) != 2 || !got[0].Lost || got[1].Key != "k" {
		t.Errorf("%+v", got)
	}
}
