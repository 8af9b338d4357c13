package config

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/doorward/doorward/internal/access"
)

// defaultIP is where somebody imagined comes from unless that is said.
const defaultIP = "127.0.0.1"

// ReadSomeone reads a file that says who asks, as strictly as the configuration
// itself. The error is of type Problems. An empty file is nobody.
func (c *Config) ReadSomeone(path string) (*access.Someone, error) {
	who := new(access.Someone)
	return who, c.readBeside(path, who, func(f access.Faults) { c.checkSomeone(who, f) })
}

// ReadDevice reads a file that describes a device, like ReadSomeone.
func (c *Config) ReadDevice(path string) (*access.SomeDevice, error) {
	dev := new(access.SomeDevice)
	return dev, c.readBeside(path, dev, func(f access.Faults) { c.checkDevice(dev, f) })
}

// readBeside decodes a file that belongs to this configuration into a section
// and asks for what is wrong with it.
func (c *Config) readBeside(path string, into any, validate func(access.Faults)) error {
	d, err := decodeFile(path, into)
	if err == nil {
		f := access.NewFaults("")
		validate(f)
		d.report(f.List())
		err = d.problems.of(path)
	}
	return err
}

// decodeFile decodes a file other than the configuration. It may be empty.
// Mistakes are in the decoder; the error, of type Problems, is for a file that
// cannot be decoded at all.
func decodeFile(path string, into any) (*decoder, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, Problems{{File: path, Text: "the file cannot be found: " + err.Error()}}
	}
	text, err := readFile(absolute)
	if err != nil {
		return nil, Problems{{File: path, Text: "the file cannot be read: " + cause(err).Error()}}
	}
	d := &decoder{files: &fileReader{dir: filepath.Dir(absolute), env: os.LookupEnv, named: stamps{}}}
	if len(bytes.TrimSpace(text)) == 0 {
		text = []byte("{}")
	}
	root, problem := parse(text)
	if problem != nil {
		return nil, Problems{*problem}.of(path)
	}
	d.decode(root, into)
	return d, nil
}

// checkSomeone reports what is wrong with somebody imagined.
func (f *File) checkSomeone(who *access.Someone, at access.Faults) {
	ids := providerIDs(f.Providers)
	if who.IP != "" {
		checkAddress(who.IP, at.At("ip"))
	}
	if who.Provider == "" {
		if who.Sub != "" || len(who.Groups) > 0 || who.Email != "" || len(who.Claims) > 0 {
			at.Add("add provider: ID", "nobody says who this is: the provider is missing")
		}
		return
	}
	if !slices.Contains(ids, who.Provider) {
		_, cure := didYouMean(who.Provider, ids)
		at.At("provider").Add(cure, "no provider has the id %q", who.Provider)
		return
	}
	if who.Machine && (who.ACR != "" || len(who.AMR) > 0 || len(who.ACRS) > 0 || who.LoginAge != 0) {
		at.At("machine").Add("remove acr, amr, acrs and login_age", "a machine does not log in")
	}
	f.checkClaimedGroups(who, at.At("groups"))
}

// checkClaimedGroups reports misspelt groups. Others that no rule knows are
// permitted: whoever has them is an outsider.
func (f *File) checkClaimedGroups(who *access.Someone, at access.Faults) {
	var claimed []string
	for _, group := range f.Groups {
		if group.Provider == who.Provider {
			claimed = append(claimed, group.ClaimGroups...)
		}
	}
	slices.Sort(claimed)
	for i, name := range who.Groups {
		if slices.Contains(claimed, name) {
			continue
		}
		if group, ours := f.Groups[name]; ours && len(group.ClaimGroups) > 0 && group.Provider == who.Provider {
			at.At("[%d]", i).Add("write a group as the provider claims it, such as "+group.ClaimGroups[0],
				"%q is the name of a group here, and no claim of the provider", name)
		}
	}
}

func checkAddress(text string, at access.Faults) {
	if _, err := netip.ParseAddr(text); err != nil {
		at.Add("write 203.0.113.7 or 2001:db8::7", "%q is no address", text)
	}
}

// checkDevice reports what is wrong with an imagined device. What it is like can
// be asked of a compiled policy only.
func (c *Config) checkDevice(dev *access.SomeDevice, at access.Faults) {
	if dev.Like == "" || c.Policy == nil {
		return
	}
	if dev.Like == "none" && *dev != (access.SomeDevice{Like: "none"}) {
		at.At("like").Add("remove it", "a device that is not there has no facts")
	}
	words := c.Policy.DeviceWords()
	if !slices.Contains(words, dev.Like) {
		_, cure := didYouMean(dev.Like, words)
		at.At("like").Add(cure, "%q is neither a device profile nor a state of a device", dev.Like)
	} else if _, ok := c.Policy.Device(dev.Like, testTime); !ok {
		at.At("like").Add("write the facts of the device", "no device can be made up that just passes %q", dev.Like)
	}
}

// As puts somebody imagined into a request whose time is set.
func (c *Config) As(req *access.Request, who *access.Someone) error {
	ip := who.IP
	if ip == "" {
		ip = defaultIP
	}
	var err error
	if req.Network.IP, err = netip.ParseAddr(ip); err != nil {
		return fmt.Errorf("ip: %w", err)
	}
	if who.Provider == "" {
		return nil
	}
	for i := range c.Providers {
		if p := &c.Providers[i]; p.ID == who.Provider {
			req.Identity = who.Identity(p.Issuer, p.Assurance.Levels(who.ACR, who.AMR, who.ACRS), req.Time)
			if !p.Trust.OfGroups() {
				req.Identity.Groups, req.Identity.GroupsIncomplete = nil, false
			}
			return nil
		}
	}
	return fmt.Errorf("no provider has the id %q", who.Provider)
}

// On puts an imagined device into a request whose time is set.
func (c *Config) On(req *access.Request, dev *access.SomeDevice) error {
	like := dev.Like
	switch {
	case dev.IsZero():
		return nil
	case like == "":
		like = "known"
	}
	made, ok := c.Policy.Device(like, req.Time)
	if !ok {
		return fmt.Errorf("no device can be made up that is like %q; write its facts", like)
	}
	req.Device = dev.Over(made, req.Time)
	return nil
}
