package audit

import (
	"time"

	"github.com/doorward/doorward/internal/access"
)

// The functions below are the meaning of omitzero (encoding/json) for structs that
// cannot be compared, of which every record has some. Asking by reflection costs a
// tenth of encoding the record.

func zeroIdentity(v *access.Identity) bool {
	return v.Kind == "" && v.Provider == "" && v.Issuer == "" && v.Subject == "" && v.Email == "" && !v.EmailVerified && v.Name == "" &&
		v.Username == "" && v.Groups == nil && !v.GroupsIncomplete && v.Claims == nil && zeroLogin(&v.Login) && v.ClientID == "" &&
		v.Scopes == nil && v.ServiceAccount == "" && v.SPIFFE == ""
}

func zeroLogin(v *access.Login) bool {
	return v.Time == time.Time{} && v.ACR == "" && v.AMR == nil && v.Levels == nil
}

func zeroDevice(v *access.Device) bool {
	return v.ID == "" && v.MatchedBy == "" && v.Source == "" &&
		v.Known == 0 && v.Managed == 0 && v.Compliant == 0 && v.DiskEncrypted == 0 && v.Jailbroken == 0 && v.Risk == 0 &&
		v.ByCertificate == 0 && v.ByClaim == 0 && v.Owned == 0 && v.OS == "" && v.OSVersion == "" && v.Owner == "" && v.Name == "" &&
		v.Reasons == nil && v.NonCompliantSince == time.Time{} && v.GraceUntil == time.Time{} && v.SeenAt == time.Time{} &&
		v.ObservedAt == time.Time{} && v.SourceFailingSince == time.Time{} && v.SourceFailing == "" && v.Problem == "" &&
		zeroCertificate(&v.Certificate)
}

func zeroCertificate(v *access.Certificate) bool {
	return v.Serial == "" && v.Issuer == "" && v.Subject == "" && v.SANs == nil && v.NotAfter == time.Time{} && v.Fingerprint == ""
}
