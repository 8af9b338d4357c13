package audit

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
)

// A log is brought to the disk each time it has grown by so much, by one at a time,
// and nobody waits for that.
func TestALogIsBroughtToTheDiskAsItGrows(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "audit.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	line := bytes.Repeat([]byte("x"), settleEvery/8)
	synctest.Test(t, func(t *testing.T) {
		begun, slow := 0, make(chan bool)
		f := &logFile{File: file, settle: func(*os.File) { begun++; <-slow }}
		for i, want := range []int{0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1} {
			if _, err := f.Write(line); err != nil {
				t.Fatal(err)
			}
			if synctest.Wait(); begun != want {
				t.Fatalf("after write %d it was begun %d times, want %d", i+1, begun, want)
			}
		}
		slow <- true
		synctest.Wait()
		f.Write(line) // what has been due for long
		if synctest.Wait(); begun != 2 {
			t.Errorf("begun %d times, want 2", begun)
		}
		slow <- true
		synctest.Wait()
	})
	if info, err := file.Stat(); err != nil || info.Size() != 21*int64(len(line)) {
		t.Errorf("%d bytes are there, want %d; %v", info.Size(), 21*len(line), err)
	}
	settle(file)
	file.Close()
	settle(file) // as when a log is put aside at that moment
}
