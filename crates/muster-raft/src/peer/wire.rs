//! Raft's messages to and from their wire form.

use crate::{
    codec,
    types::{LogEntry, LogId, TypeConfig, Vote, log_id, term_of},
};
use muster_proto::raft as proto;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};

/// What is wrong with a message.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    #[error("the message lacks its {0}")]
    Missing(&'static str),
    #[error("an entry does not decode")]
    Entry(#[from] codec::CodecError),
}

pub(crate) fn to_log_id(id: &LogId) -> proto::LogId {
    proto::LogId { term: term_of(id), node: 0, index: id.index }
}

pub(crate) fn from_log_id(id: proto::LogId) -> LogId {
    log_id(id.term, id.index)
}

pub(crate) fn to_vote(vote: &Vote) -> proto::VoteValue {
    proto::VoteValue { term: vote.leader_id.term, node: vote.leader_id.voted_for, committed: vote.committed }
}

pub(crate) fn from_vote(vote: Option<proto::VoteValue>) -> Result<Vote, WireError> {
    let vote = vote.ok_or(WireError::Missing("vote"))?;
    let mut read = Vote::new(vote.term, vote.node);
    read.committed = vote.committed;
    Ok(read)
}

pub(crate) fn to_append(
    target: proto::Target,
    request: AppendEntriesRequest<TypeConfig>,
) -> Result<proto::AppendRequest, WireError> {
    let entries = request.entries.iter().map(|entry| {
        let payload = codec::encode_payload(&entry.payload)?;
        Ok(proto::LogEntry { id: Some(to_log_id(&entry.log_id)), payload })
    });
    Ok(proto::AppendRequest {
        target: Some(target),
        vote: Some(to_vote(&request.vote)),
        previous: request.prev_log_id.as_ref().map(to_log_id),
        committed: request.leader_commit.as_ref().map(to_log_id),
        entries: entries.collect::<Result<_, WireError>>()?,
        sequence: 0,
    })
}

pub(crate) fn from_append(
    request: proto::AppendRequest,
) -> Result<AppendEntriesRequest<TypeConfig>, WireError> {
    let entries = request.entries.into_iter().map(|entry| {
        let id = from_log_id(entry.id.ok_or(WireError::Missing("log id"))?);
        Ok(codec::decode_entry(id, entry.payload)?)
    });
    Ok(AppendEntriesRequest {
        vote: from_vote(request.vote)?,
        prev_log_id: request.previous.map(from_log_id),
        entries: entries.collect::<Result<Vec<LogEntry>, WireError>>()?,
        leader_commit: request.committed.map(from_log_id),
    })
}

pub(crate) fn to_append_response(
    sequence: u64,
    response: AppendEntriesResponse<TypeConfig>,
) -> proto::AppendResponse {
    use proto::append_response::{Conflict, Outcome, Partial, Success};
    let outcome = match response {
        AppendEntriesResponse::Success => Outcome::Success(Success {}),
        AppendEntriesResponse::PartialSuccess(matched) => {
            Outcome::Partial(Partial { matched: matched.as_ref().map(to_log_id) })
        }
        AppendEntriesResponse::Conflict => Outcome::Conflict(Conflict {}),
        AppendEntriesResponse::HigherVote(vote) => Outcome::HigherVote(to_vote(&vote)),
    };
    proto::AppendResponse { sequence, outcome: Some(outcome) }
}

pub(crate) fn from_append_response(
    response: proto::AppendResponse,
) -> Result<AppendEntriesResponse<TypeConfig>, WireError> {
    use proto::append_response::Outcome;
    Ok(match response.outcome.ok_or(WireError::Missing("outcome"))? {
        Outcome::Success(_) => AppendEntriesResponse::Success,
        Outcome::Partial(partial) => AppendEntriesResponse::PartialSuccess(partial.matched.map(from_log_id)),
        Outcome::Conflict(_) => AppendEntriesResponse::Conflict,
        Outcome::HigherVote(vote) => AppendEntriesResponse::HigherVote(from_vote(Some(vote))?),
    })
}

pub(crate) fn to_vote_request(
    target: proto::Target,
    request: &VoteRequest<TypeConfig>,
    pre_vote: bool,
) -> proto::VoteRequest {
    proto::VoteRequest {
        target: Some(target),
        vote: Some(to_vote(&request.vote)),
        last_log: request.last_log_id.as_ref().map(to_log_id),
        pre_vote,
        leadership_transfer: request.leadership_transfer,
    }
}

pub(crate) fn from_vote_request(request: proto::VoteRequest) -> Result<VoteRequest<TypeConfig>, WireError> {
    let mut read = VoteRequest::new(from_vote(request.vote)?, request.last_log.map(from_log_id));
    read.leadership_transfer = request.leadership_transfer;
    Ok(read)
}

pub(crate) fn to_vote_response(response: &VoteResponse<TypeConfig>) -> proto::VoteResponse {
    proto::VoteResponse {
        vote: Some(to_vote(&response.vote)),
        granted: response.vote_granted,
        last_log: response.last_log_id.as_ref().map(to_log_id),
    }
}

pub(crate) fn from_vote_response(
    response: proto::VoteResponse,
) -> Result<VoteResponse<TypeConfig>, WireError> {
    Ok(VoteResponse {
        vote: from_vote(response.vote)?,
        vote_granted: response.granted,
        last_log_id: response.last_log.map(from_log_id),
    })
}
