/* The lease protocol, for two candidates and one row, on discrete time. Checked by Spin; docs/model.md has the figures.

   A candidate may be as slow as it likes between any two steps, so that no step has to happen: only clocks move by
   themselves. Requests travel for any time, answers too; both may be lost; what was given up may arrive later, or never.
   The clock of candidate 0 may lose one tick in TTL ticks (which of the two is slow makes no difference). The store's
   clock may be off by up to SKEW. With -DSLEEP machines may sleep; with -DFENCE candidates write at a fenced resource.

   A release may hand the role over: the row then names the other candidate, or one that is dead, with beat 0, and may be
   taken over after HAND ticks. The one that is named may do nothing, like anybody; or it has stood down, and gives back
   what it finds in its name. With -DHANDS every release of a leader hands over; with -DNO_HANDS there is none of this.

   Checked at every step: two candidates never believe at once; the row's token rises with every claim and never falls;
   nobody but the one that was named gets a handed-over row before it has run out; a fenced resource never gets an older
   token in after a newer one.

   What can make no difference any more is set to nothing, so that states that behave alike are one state.

   A mutant is switched on by -D and its name (grep M_). */

#ifndef TTL
#define TTL 4
#endif
#define MARGIN 1
#define SKEW 2
#ifndef HAND
#define HAND 1       /* what a handed-over row is good for: it has its own, shorter, time to live */
#endif
#ifndef BEATS
#define BEATS 3      /* requests that count a beat, for each candidate */
#endif
#ifndef BEATS_1
#define BEATS_1 BEATS  /* the same for candidate 1 */
#endif
#define beats(i) ((i) -> BEATS_1 : BEATS)
#ifndef TOKENS
#define TOKENS 3     /* no claim is sent once the row's token is this high */
#endif

#ifdef M_NO_MARGIN
#define PROMISE TTL
#else
#define PROMISE (TTL - MARGIN)
#endif
#define DEAD 3       /* a candidate that was killed: nothing comes of its being named */
#define handed(h, b) ((h) && !(b))   /* beat 0 is nobody's own */
#define lasts(h, b) (handed(h, b) -> HAND : TTL)
#ifdef M_SKEW_WITHOUT_MARGIN
#define RUN_OUT(age) ((age) > lasts(holder, beat))
#else
#define RUN_OUT(age) ((age) > lasts(holder, beat) + SKEW)
#endif
#define OLDEST (TTL + SKEW + 1)

#if !defined(M_NO_CAS) && !defined(M_UNGUARDED_RENEWAL) && !defined(M_UNGUARDED_RELEASE) && !defined(M_UNGUARDED_HANDOVER) && !defined(M_SAME_TOKEN) && !defined(M_RELEASE_DELETES) && !defined(M_RENEWAL_WITHOUT_BEAT)
#define GUARDED
#endif
#ifdef M_HANDED_OVER_IS_VACANT
#define FREE handed(holder, beat)
#else
#define FREE false
#endif
#ifdef M_SLEEPING_LEADER
#define AWAKE(i) (!c[i].asleep)
#else
#define AWAKE(i) true
#endif
#ifdef M_OBSERVED_FROM_THE_REQUEST
#define timed(i) (c[i].out.kind)
#else
#define timed(i) (c[i].out.kind == CLAIM || c[i].out.kind == RENEW)
#endif

#define FOLLOWS 0
#define LEADS 1
#define UNSURE 2

#define CLAIM 1
#define RENEW 2
#define RELEASE 3
#define LOOK 4

typedef Request {
	byte kind;           /* 0: none */
	bit expects;         /* a claim that names what it saw */
	byte h, t, b;        /* what it saw; for renewals and releases t is the token, and h whom it is handed to */
	bit takeover;
	byte beat
}

typedef Candidate {
	byte phase, token, used;        /* used: beats so far */
	byte age;                       /* of the promise: own ticks since the request that brought it was sent */
	bit known; byte h, t, b, seen;  /* the row as last seen, and own ticks since */
	Request out;                    /* under way */
	byte sent;                      /* own ticks since it was sent */
	bit answered, applied; byte rh, rt, rb;
	Request stray;                  /* given up, and not lost */
	bit asleep
}

Candidate c[2];
byte holder, token, beat;           /* the row; holder is 1 + the candidate's number, 0 for nobody, or DEAD */
byte row_age;                       /* true ticks since it was last written, by anything but a plain release */
byte top;                           /* the highest token so far */
byte fence;                         /* what the resource has seen */
byte writing[2];                    /* a write that was checked, and is on its way */
byte steady;                        /* ticks until the clock of candidate 0 may lose one again */

#ifdef M_FLAG
#define believes(i) (c[i].phase == LEADS)
#else
#define believes(i) (c[i].phase == LEADS && c[i].age < PROMISE)
#endif

inline forget(r) { r.kind = 0; r.expects = 0; r.h = 0; r.t = 0; r.b = 0; r.takeover = 0; r.beat = 0 }

inline copy(to, from) {
	to.kind = from.kind; to.expects = from.expects; to.h = from.h; to.t = from.t; to.b = from.b;
	to.takeover = from.takeover; to.beat = from.beat
}

/* What the store does with a request of candidate i; done says whether it was applied. */
inline serve(i, r) {
	done = 0;
	if
	:: r.kind == CLAIM ->
		/* the store's clock is off by anything from nothing to SKEW */
		if :: off = 0 :: off = SKEW fi;
#ifdef M_NO_CAS
		same = 1;
#else
		same = (!r.expects || (r.h == holder && r.t == token && r.b == beat));
#endif
		mine = (r.expects && holder == i + 1);
		if
		:: same && (holder == 0 || mine || r.takeover || RUN_OUT(row_age + off) || FREE) ->
#ifndef M_UNGUARDED_HANDOVER
			assert(!handed(holder, beat) || holder == i + 1 || holder == DEAD || row_age >= HAND);  /* kept for it */
#endif
			done = 1; holder = i + 1; beat = r.beat; row_age = 0;
#ifndef M_SAME_TOKEN
			token++;
#endif
			assert(token > top);          /* the token rises with every claim */
			top = token
		:: else
		fi
	:: r.kind == RENEW ->
#ifdef M_UNGUARDED_RENEWAL
		done = 1; holder = i + 1; token = r.t; beat = r.beat; row_age = 0;
#else
		if
		:: holder == i + 1 && token == r.t && r.beat > beat -> done = 1; row_age = 0;
#ifndef M_RENEWAL_WITHOUT_BEAT
			beat = r.beat
#endif
		:: else
		fi;
#endif
	:: r.kind == RELEASE ->
#ifdef M_UNGUARDED_RELEASE
		done = 1; holder = 0; beat = r.beat; row_age = 0;
#else
		if
#ifdef M_UNGUARDED_HANDOVER
		:: r.h ->
#else
		:: r.h && holder == i + 1 && token == r.t && r.beat > beat ->
#endif
			done = 1; holder = r.h; beat = 0; row_age = 0
		:: !r.h && holder == i + 1 && token == r.t && r.beat > beat ->
			done = 1; holder = 0; beat = r.beat; row_age = 0;
#ifdef M_RELEASE_DELETES
			token = 0; beat = 0;
#endif
		:: else
		fi;
#endif
	:: else                               /* a look */
	fi;
	off = 0; same = 0; mine = 0
}

inline see(i, hh, tt, bb) {
	if
	:: !c[i].known || c[i].h != hh || c[i].t != tt || c[i].b != bb ->
		c[i].known = 1; c[i].h = hh; c[i].t = tt; c[i].b = bb;
#ifdef M_OBSERVED_FROM_THE_REQUEST
		c[i].seen = (c[i].out.kind -> c[i].sent : 0)
#else
		c[i].seen = 0
#endif
	:: else
	fi
}

inline unanswered(i) { c[i].answered = 0; c[i].applied = 0; c[i].rh = 0; c[i].rt = 0; c[i].rb = 0; c[i].sent = 0 }

inline send(i, k) { c[i].out.kind = k; c[i].sent = 0; if :: k != LOOK -> c[i].used++; c[i].out.beat = c[i].used :: else fi }

inline claim(i, with, over) {
	c[i].out.expects = with; c[i].out.takeover = over;
#ifdef M_NAMED_CLAIMS_BLINDLY
	if :: c[i].h == i + 1 && handed(c[i].h, c[i].b) -> c[i].out.expects = 0; c[i].out.takeover = 1 :: else fi;
#endif
	if :: c[i].out.expects -> c[i].out.h = c[i].h; c[i].out.t = c[i].t; c[i].out.b = c[i].b :: else fi;
	send(i, CLAIM)
}

inline lead(i) {
	c[i].phase = LEADS; c[i].token = c[i].rt;
#ifdef M_DEADLINE_FROM_THE_REPLY
	c[i].age = 0
#else
	c[i].age = c[i].sent
#endif
}

inline over(i) { c[i].phase = FOLLOWS; c[i].token = 0; c[i].age = 0 }

inline give_back(i, tt, whom) { c[i].out.t = tt; c[i].out.h = whom; send(i, RELEASE) }

inline release(i) {
	if
#ifndef HANDS
	:: give_back(i, c[i].token, 0)
#endif
#ifndef NO_HANDS
	:: give_back(i, c[i].token, 2 - i)
	:: give_back(i, c[i].token, DEAD)
#endif
	fi;
#ifndef M_BELIEVES_WHILE_RELEASING
	over(i)
#endif
}

/* A feed shows this; it may be a write that is not done yet, and never will be. */
inline hint(i, hh, tt, bb) {
	see(i, hh, tt, bb);
#ifdef M_HANDED_OVER_LEADS
	if
	:: hh == i + 1 && handed(hh, bb) -> forget(c[i].out); unanswered(i); c[i].phase = LEADS; c[i].token = tt; c[i].age = 0
	:: else
	fi
#endif
}

inline take_answer(i) {
	see(i, c[i].rh, c[i].rt, c[i].rb);
	if
	:: c[i].out.kind == CLAIM && c[i].applied && c[i].sent < PROMISE -> lead(i)
	:: c[i].out.kind == RENEW && c[i].phase == LEADS && c[i].applied ->
#ifdef M_DEADLINE_FROM_THE_REPLY
		c[i].age = 0
#else
		if :: c[i].sent < c[i].age -> c[i].age = c[i].sent :: else fi
#endif
	:: c[i].out.kind == RENEW && c[i].phase == LEADS && !c[i].applied && (c[i].rh != i + 1 || c[i].rt != c[i].token) ->
		over(i)
#ifdef M_BELIEVES_WHILE_RELEASING
	:: c[i].out.kind == RELEASE && c[i].phase == LEADS -> over(i)
#endif
	:: c[i].out.kind == LOOK ->
		c[i].phase = FOLLOWS;
#ifdef M_ADOPT
		if :: c[i].rh == i + 1 -> lead(i) :: else fi
#endif
	:: else
	fi;
	forget(c[i].out); unanswered(i)
}

inline give_up(i) {
	if
	:: c[i].out.kind == CLAIM -> c[i].phase = UNSURE
	:: else
	fi;
	if
	:: !c[i].answered && c[i].stray.kind == 0 && c[i].out.kind != LOOK -> copy(c[i].stray, c[i].out)
	:: true                               /* it, or its answer, is lost */
	fi;
#ifdef M_BLIND_RETRY
	if                                    /* the same swap again, against whatever is there now */
	:: c[i].out.kind == CLAIM && c[i].used < beats(i) && token < TOKENS ->
		c[i].phase = FOLLOWS; c[i].answered = 0; c[i].applied = 0; c[i].rh = 0; c[i].rt = 0; c[i].rb = 0; c[i].sent = 0;
		c[i].out.expects = 0; c[i].out.h = 0; c[i].out.t = 0; c[i].out.b = 0;
		c[i].used++; c[i].out.beat = c[i].used
	:: else -> forget(c[i].out); unanswered(i)
	fi
#else
	forget(c[i].out); unanswered(i)
#endif
}

inline older(ticks, most) { if :: ticks < most -> ticks++ :: else fi }

inline tick(i) {
	if
	:: i == 0 && steady == 0 && (c[0].age || c[0].out.kind) && !c[0].asleep -> steady = TTL - 1  /* it loses this tick */
	:: true ->
		if :: i == 0 && steady > 0 -> steady-- :: else fi;
		/* the clock that counts suspend: promises and requests */
		if
		:: c[i].phase == LEADS && AWAKE(i) -> older(c[i].age, TTL)
		:: else
		fi;
		if :: timed(i) -> older(c[i].sent, PROMISE) :: else fi;
		/* the clock that does not: a challenger's wait */
		if :: !c[i].asleep && c[i].known && c[i].phase != LEADS && c[i].h && c[i].h != i + 1 ->
			older(c[i].seen, lasts(c[i].h, c[i].b)) :: else fi
	fi;
#ifndef M_FLAG
	if :: c[i].phase == LEADS && c[i].age >= PROMISE -> over(i) :: else fi
#endif
}

/* What can have no effect any more. */
inline tidy(i) {
#ifdef GUARDED
	if
	:: (c[i].stray.kind == RENEW || c[i].stray.kind == RELEASE) &&
	   (holder != i + 1 || token != c[i].stray.t || c[i].stray.beat <= beat) -> forget(c[i].stray)
	:: c[i].stray.kind == CLAIM && c[i].stray.expects &&
	   (token > c[i].stray.t || (token == c[i].stray.t && beat > c[i].stray.b && holder == c[i].stray.h)) ->
		forget(c[i].stray)
	:: else
	fi;
#endif
	if :: holder == 0 -> row_age = 0 :: else fi
}

#define may_claim(i) (c[i].phase == FOLLOWS && !c[i].out.kind && c[i].used < beats(i) && token < TOKENS)

active proctype everything() {
	bit done, same, mine; byte off, was, i;
	do
	:: atomic {
		if :: i = 0 :: i = 1 fi;
		if
		/* what a candidate does while its machine is awake */
		:: !c[i].asleep && may_claim(i) && !c[i].known -> claim(i, 0, 0)
		:: !c[i].asleep && may_claim(i) && c[i].known -> claim(i, 1, c[i].seen >= lasts(c[i].h, c[i].b))
		:: !c[i].asleep && c[i].phase == UNSURE && !c[i].out.kind -> send(i, LOOK)
		:: !c[i].asleep && c[i].phase == LEADS && !c[i].out.kind && c[i].used < beats(i) ->
			c[i].out.t = c[i].token; send(i, RENEW)
		:: !c[i].asleep && c[i].phase == LEADS && !c[i].out.kind && c[i].used < beats(i) -> release(i)
#ifndef NO_HANDS
		/* it has stood down meanwhile, and gives back what is in its name, without ever having believed it */
		:: !c[i].asleep && c[i].answered && c[i].out.kind == LOOK && c[i].rh == i + 1 && c[i].used < beats(i) ->
			was = c[i].rt; take_answer(i); give_back(i, was, 0); was = 0
#endif
		:: !c[i].asleep && c[i].answered -> take_answer(i)
		:: !c[i].asleep && c[i].out.kind -> give_up(i)
#ifdef FENCE
		:: !c[i].asleep && believes(i) && !writing[i] -> writing[i] = c[i].token
#endif
		/* what the net and the store do */
		:: c[i].out.kind && !c[i].answered ->
			serve(i, c[i].out);
			c[i].answered = 1; c[i].applied = done; c[i].rh = holder; c[i].rt = token; c[i].rb = beat; done = 0
#ifndef NO_HANDS
			;
			if                            /* a hand-over may be delivered twice, and late */
			:: c[i].out.kind == RELEASE && c[i].out.h && c[i].stray.kind == 0 -> copy(c[i].stray, c[i].out)
			:: true
			fi
#endif
		:: c[i].stray.kind -> serve(i, c[i].stray); done = 0; forget(c[i].stray)
		:: writing[i] ->
			if
			:: writing[i] >= fence -> fence = writing[i]
#ifdef M_NO_FENCE
			:: else -> assert(false)
#else
			:: else
#endif
			fi;
			writing[i] = 0
		/* a feed shows the row, or what has been sent and is not yet done */
		:: !c[i].asleep && c[i].phase == FOLLOWS && token >= c[i].t && (holder || token) -> hint(i, holder, token, beat)
		:: !c[i].asleep && c[i].phase == FOLLOWS && c[1-i].out.kind == RENEW && !c[1-i].answered &&
		   holder == 2 - i && token == c[1-i].out.t && c[1-i].out.beat > beat -> hint(i, holder, token, c[1-i].out.beat)
		:: !c[i].asleep && c[i].phase == FOLLOWS && c[1-i].out.kind == RELEASE && c[1-i].out.h && !c[1-i].answered &&
		   holder == 2 - i && token == c[1-i].out.t && c[1-i].out.beat > beat -> hint(i, c[1-i].out.h, token, 0)
#ifdef SLEEP
		:: c[i].asleep = !c[i].asleep
#endif
		/* time passes for everybody */
		:: i == 0 -> tick(0); tick(1); older(row_age, OLDEST)
		:: else
		fi;
		i = 0; tidy(0); tidy(1);
		assert(token >= top);                     /* the token never falls */
		assert(!(believes(0) && believes(1)))     /* one leader */
	}
	od
}
