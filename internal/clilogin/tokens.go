package clilogin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"
)

// ErrNotLoggedIn tells that a person has to log in, again or for the first time.
var ErrNotLoggedIn = errors.New("you are not logged in, or the login has ended: run doorward login")

// Token is what a login gave. It prints as [redacted].
type Token struct {
	Issuer   string    `json:"issuer"`
	ClientID string    `json:"client_id"`
	Resource string    `json:"resource,omitempty"`
	Access   string    `json:"access_token"`
	Refresh  string    `json:"refresh_token,omitempty"`
	Expires  time.Time `json:"expires"`
}

// Format implements fmt.Formatter.
func (Token) Format(f fmt.State, _ rune) { io.WriteString(f, "[redacted]") }

// margin is how long a token that is handed out stays good at least.
const margin = time.Minute

// same reports whether two tokens are of one login.
func (t *Token) same(o *Token) bool {
	return t.Issuer == o.Issuer && t.ClientID == o.ClientID && t.Resource == o.Resource
}

// Tokens keeps tokens in a file that its owner alone can read.
type Tokens struct {
	// Path is the file; its folder is made when it is needed.
	Path string
	// Now is the clock, Wait a pause. Defaults: time.Now, a timer.
	Now  func() time.Time
	Wait func(context.Context, time.Duration) error
}

// DefaultPath returns the file in the folder for the person's settings.
func DefaultPath() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("there is no folder to keep the token in: %w", err)
	}
	return filepath.Join(dir, "doorward", "tokens.json"), nil
}

// file is what is kept, the login used last first.
type file struct {
	Version int     `json:"version"`
	Logins  []Token `json:"logins"`
}

const maxFile = 4 << 20

func (k *Tokens) load() (f file, err error) {
	in, err := os.Open(k.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return file{Version: 1}, nil
	}
	if err != nil {
		return f, err
	}
	defer in.Close()
	if info, err := in.Stat(); err != nil {
		return f, err
	} else if info.Mode().Perm()&0o077 != 0 && runtime.GOOS != "windows" {
		return f, fmt.Errorf("%s can be read by others: run chmod 600 on it, or remove it and log in again", k.Path)
	}
	text, err := io.ReadAll(io.LimitReader(in, maxFile))
	if err != nil {
		return f, err
	}
	if err := json.Unmarshal(text, &f); err != nil || f.Version != 1 {
		return f, fmt.Errorf("%s is damaged: remove it and log in again", k.Path)
	}
	return f, nil
}

// save replaces the file whole or not at all.
func (k *Tokens) save(f file) error {
	text, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	temp, err := os.CreateTemp(filepath.Dir(k.Path), ".tokens-*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name())
	_, err = temp.Write(append(text, '\n'))
	if err == nil {
		err = temp.Sync()
	}
	if err = errors.Join(err, temp.Close()); err != nil {
		return err
	}
	return os.Rename(temp.Name(), k.Path)
}

const (
	lockPause = 50 * time.Millisecond
	lockStale = 2 * time.Minute // more than any holder may take
)

// locked runs change while no other doorward changes the file: of two that
// refresh at once, one would spend the other's refresh token.
func (k *Tokens) locked(ctx context.Context, change func() error) error {
	if err := os.MkdirAll(filepath.Dir(k.Path), 0o700); err != nil {
		return err
	}
	now, pause := k.Now, k.Wait
	if now == nil {
		now = time.Now
	}
	if pause == nil {
		pause = wait
	}
	lock := k.Path + ".lock"
	for {
		held, err := os.OpenFile(lock, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err == nil {
			held.Close()
			break
		}
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
		if info, err := os.Stat(lock); err == nil && now().Sub(info.ModTime()) > lockStale {
			os.Remove(lock) // its holder was killed
			continue
		}
		if err := pause(ctx, lockPause); err != nil {
			return fmt.Errorf("another doorward login holds %s", lock)
		}
	}
	defer os.Remove(lock)
	return change()
}

// Keep puts the token of a new login first.
func (k *Tokens) Keep(ctx context.Context, t Token) error {
	return k.locked(ctx, func() error {
		f, err := k.load()
		if err != nil {
			return err
		}
		return k.put(f, t)
	})
}

func (k *Tokens) put(f file, t Token) error {
	f.Logins = slices.DeleteFunc(f.Logins, func(o Token) bool { return o.same(&t) })
	f.Logins = slices.Insert(f.Logins, 0, t)
	return k.save(f)
}

// Want selects a login: all fields that are not empty have to be the same.
type Want struct{ Issuer, ClientID, Resource string }

func (f *file) find(want Want) *Token {
	i := slices.IndexFunc(f.Logins, func(t Token) bool {
		return (want.Issuer == "" || want.Issuer == t.Issuer) && (want.ClientID == "" || want.ClientID == t.ClientID) &&
			(want.Resource == "" || want.Resource == t.Resource)
	})
	if i < 0 {
		return nil
	}
	return &f.Logins[i]
}

// Valid returns an access token that is good for a while, refreshed if needed.
// client returns the client for a login. Errors are ErrNotLoggedIn and what kept
// the provider or the file from being read.
func (k *Tokens) Valid(ctx context.Context, want Want, now time.Time, client func(Token) (*Client, error)) (string, error) {
	f, err := k.load()
	if err != nil {
		return "", err
	}
	t := f.find(want)
	if t == nil {
		return "", ErrNotLoggedIn
	}
	if now.Add(margin).Before(t.Expires) {
		return t.Access, nil
	}
	access := ""
	err = k.locked(ctx, func() error {
		f, err := k.load() // another doorward may have refreshed it meanwhile
		if err != nil {
			return err
		}
		if t = f.find(want); t == nil {
			return ErrNotLoggedIn
		}
		if now.Add(margin).Before(t.Expires) {
			access = t.Access
			return nil
		}
		c, err := client(*t)
		if err != nil {
			return err
		}
		fresh, err := c.Refresh(ctx, *t)
		if err != nil {
			return err
		}
		access = fresh.Access
		return k.put(f, fresh)
	})
	return access, err
}
