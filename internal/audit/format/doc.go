// Package format answers the question: what do other systems call what happened?
//
// It turns an audit event into the words of the Open Cybersecurity Schema
// Framework (OCSF) or the Elastic Common Schema (ECS). What they have no word
// for is kept under a name of its own, so nothing of an event is left out.
package format
