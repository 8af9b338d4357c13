package devicecheck

import (
	"fmt"
	"slices"

	"github.com/doorward/doorward/internal/access"
)

// A kind is one type of inventory.
type kind struct {
	open     func(Source, outside) (fetcher, error)
	validate func(Source, access.Faults)
	// keys are the keys of the configuration that mean something to it, besides
	// those that every source has.
	keys []string
	// ids are the members of its records that may be the id of a device. The
	// first is the default.
	ids []string
}

// kinds lists all types of inventory.
var kinds = map[string]kind{
	"file": {open: func(s Source, _ outside) (fetcher, error) { return newFile(s.Path) }, validate: Source.validateFile, keys: []string{"path"}},
	"http": {open: opener(newHTTP), validate: Source.validateHTTP, keys: []string{"url", "headers", "items", "next", "fields"}},
	"fleet": {
		open: opener(newFleet), validate: Source.validateFleet,
		keys: []string{"url", "token", "key"}, ids: []string{"uuid", "hardware_serial", "hostname"},
	},
	"intune": {
		open: opener(newIntune), validate: Source.validateMicrosoft,
		keys: microsoftConfig, ids: []string{"azureADDeviceId", "id", "serialNumber"},
	},
	"entra": {
		open: opener(newEntra), validate: Source.validateMicrosoft,
		keys: slices.Concat(microsoftConfig, []string{"with_intune", "trust_types"}), ids: []string{"deviceId", "id"},
	},
	"defender": {
		open: opener(newDefender), validate: Source.validateMicrosoft,
		keys: microsoftConfig, ids: []string{"aadDeviceId", "id", "computerDnsName"},
	},
	"jamf": {
		open: opener(newJamf), validate: Source.validateJamf,
		keys: []string{"url", "client_id", "client_secret", "key", "compliant_group"},
		ids:  []string{"udid", "serialNumber", "managementId", "id"},
	},
	"google": {
		open: opener(newGoogle), validate: Source.validateGoogle,
		keys: []string{"url", "service_account", "subject", "token_url", "customer", "partner", "key"},
		ids:  []string{"deviceId", "serialNumber", "name"},
	},
	"crowdstrike": {
		open: opener(newCrowdStrike), validate: Source.validateCrowdStrike,
		keys: []string{"url", "client_id", "client_secret", "min_score", "key"},
		ids:  []string{"aid", "system_serial_number"},
	},
}

var microsoftConfig = []string{"url", "auth_url", "tenant", "client_id", "client_secret", "key"}

// opener turns the constructor of one kind into that of all.
func opener[F fetcher](open func(Source, outside) (F, error)) func(Source, outside) (fetcher, error) {
	return func(s Source, o outside) (fetcher, error) { return open(s, o) }
}

// newFetcher returns the fetcher for a source.
func newFetcher(s Source, o outside) (fetcher, error) {
	k, ok := kinds[s.Type]
	if !ok {
		return nil, fmt.Errorf("source %q: %q is no type of inventory", s.ID, s.Type)
	}
	if s.Key == "" && len(k.ids) > 0 {
		s.Key = k.ids[0]
	}
	o.log = o.log.With("source", s.ID)
	return k.open(s, o)
}

// remote reports whether the inventory is asked over HTTP.
func (s Source) remote() bool { return s.Type != "file" }
