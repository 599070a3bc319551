"""The word patterns of the search classifier (classifier.py), each list with what it is for. All ignore case.

A pattern is added together with a turn in tests/serve/classifier_tuned.tsv that needs it.
"""

from __future__ import annotations

import re


def any_of(*alternatives: str) -> re.Pattern[str]:
    """One pattern that finds whatever one of these does."""
    return re.compile("|".join(alternatives), re.IGNORECASE)


# Around a request, and no part of it.
GREETING = any_of(
    r"^(?:(?:hi|hello|hey|yo|good (?:morning|evening|afternoon|day)|thanks?(?: you)?|thx|ok(?:ay)?|nice|great|"
    r"cool|perfect|sure|well|so|hmm+|um+|alright|right|got it|i see|lovely|please|sorry|excuse me|btw|"
    r"by the way|there|also|again|and|but|then|oh|actually|just)\b[\s,.!:;-]*)+",
)  # fmt: skip
WRAPPING = any_of(
    r"^(?:(?:can|could|would|will) you (?:please |kindly |maybe |quickly )*(?:tell me|say|check|let me know|"
    r"explain|give me|find out for me)\b|(?:please )?(?:tell me|let me know|i(?:'d| would) like to know|"
    r"i (?:want|need) to know|i(?:'m| am) (?:wondering|curious)|do you (?:happen to )?know|"
    r"any idea)\b)[\s,:]*(?:if |whether )?(?=(?:what|who|when|where|how|which|is|are|the|if|whether|did)\b)",
)  # fmt: skip
# How a request begins that is not a question by its mark.
ASKING = any_of(
    r"^(?:what|what's|who|who's|when|when's|where|where's|which|how|how's|is|are|was|were|did|does|do|has|have|"
    r"will|can|could|any|should|find|show|give|get|list|check|search|look|google|update)\b",
)  # fmt: skip
# About the assistant itself, which no search knows.
OF_ASSISTANT = any_of(
    r"\b(?:who|what) (?:are|r) (?:you|u)\b",
    r"\bwho (?:\w+ )?(?:made|created|built|trained|developed|designed|owns|programmed|invented|wrote|released) you\b",
    r"\b(?:which|what) (?:company|team|person|people|organi[sz]ation) (?:made|created|built|trained|developed|"
    r"owns|released|is behind) you\b",
    r"\b(?:when|where|how|why) (?:were|was|are|do|did|have|would) you\b", r"\bare you\b", r"\bwere you\b",
    r"\bdo you (?!know\b|think\b.*\b(?:will|win)\b|happen)",
    r"\byour (?:name|age|version|maker|creator|developer|owner|ceo|company|boss|model|training|knowledge|cutoff|"
    r"favou?rite|birthday|opinion|parameters|weights|purpose)\b",
    r"\bwhat (?:version|model|kind of model|language model) are you\b",
    r"\bwhat(?:'s| is| are| do| did| would| can| should)(?: do)? you(?:r)?\b",
    r"\bwhen (?:did|will) (?:they|someone|anyone|people|your \w+) (?:make|release|create|update|train|start) you\b",
)  # fmt: skip
# Whether and how it searches, which is no order to.
ABOUT_SEARCHING = any_of(
    r"^(?:can|could|do|are) you (?:able to )?(?:search|browse|access|have access to|use|"
    r"connect(?:ed)? to)(?: to)?(?: (?:the )?(?:web|internet|online|google))*(?: right now)?\W*$",
    r"^do you have (?:access|internet)", r"^how (?:does|do) (?:a |an |the )?(?:search|web search)",
)  # fmt: skip
# Ways of doing things, text to be made or changed, and code.
HOW_TO = any_of(
    r"^how (?:do|can|could|should|would|might) (?:i|we|you|one|someone)\b", r"^how to\b",
)  # fmt: skip
WORK_ON_TEXT = any_of(
    r"^(?:please )?(?:translate|rewrite|rephrase|paraphrase|reword|summari[sz]e|proofread|fix|correct|edit|"
    r"improve|shorten|write|compose|draft|imagine|pretend|role-?play|act as|explain|define|describe|continue|"
    r"complete|solve|prove|recommend|suggest|brainstorm|invent|sing|say|spell|generate|create|come up with|"
    r"construct|given|identify|rank|predict|calculate|name|recall|design|develop|build|outline|discuss|evaluate|"
    r"determine|arrange|rearrange|sort|categori[sz]e|extract|answer|choose|select|replace|remove|assign|"
    r"organi[sz]e|propose|formulate|elaborate|consider|suppose|assume|if|provide (?:insights?|an?|some|"
    r"examples?|advice)|convert (?!.*\b(?:usd|eur|gbp|jpy|inr|cad|aud|chf|cny|dollars?|euros?|yen|"
    r"rupees?)\b)[^?]*|make (?:it|this|that|up|me)|turn (?:it|this)|put (?:it|this)|simplify|classify|"
    r"analy[sz]e|compare)\b(?! (?:the )?(?:latest|current|recent)\b)",
    r"^(?!.*\b(?:latest|current|recent|today|tonight|now)\b)(?:\S+ ){0,3}(?:names?|ideas?|suggestions?|slogans?|"
    r"taglines?|mottos?|titles?|captions?|hashtags?|topics?) (?:for|about) (?:an?|my|our|your|some|this)\b",
    r"\b(?:name|logo|title|slogan|headline|caption) ideas?\b",
    r"^(?:tell|write|give|sing|make|read) me (?:a |an |one |some |another |\d+ )?(?:\w+ )?(?:joke|story|poem|"
    r"song|sentence|tips?|ideas?|example|synonyms?|advice|riddle|limerick|haiku)",
    r"\b(?:write|compose|draft) (?:a|an|me|some)\b", r"^list \d+\b",
    r"^in (?:one|two|simple|simpler|other|your|a few|\d+) (?:sentences?|words|terms)",
    r"\b(?:my|this|the) (?:grammar|spelling|sentence|punctuation)\b", r"\bsentence with\b", r"\bpast tense\b",
    r"\bplural of\b", r"\bopposite of\b", r"\bsynonyms? (?:of|for)\b",
    r"\bhow (?:do|would) (?:you|i|we) (?:say|spell|pronounce)\b", r"\bspell\b",
    r"\bin (?:french|german|spanish|italian|english|latin|japanese|chinese|hindi)\W*$", r"^what does .*\bmeans?\b",
    r"\bmeaning of\b", r"\bis this (?:sentence|correct|right)\b", r"^(?:give|use) (?:me )?\d+ ",
)  # fmt: skip
CODE = any_of(
    r"[{};`]", r"\w\(", r"\b(?:def|return|SELECT|FROM|WHERE|import|printf?|console\.log)\b[^.]*[=(*:]",
    r"\bin (?:python|javascript|java|git|vim|linux|bash|sql|rust|excel|c\+\+|typescript|html|css|go|ruby|php|"
    r"swift|kotlin|powershell|docker)\b",
)  # fmt: skip
# Something is told: it begins so, and has such a verb.
STATEMENT = any_of(
    r"^(?:i|i'm|i've|i'd|i'll|im|my|we|we're|we've|our|he|he's|she|she's|they|they're|it|it's|its|this|that|"
    r"that's|the|there's|there|a|an|you|your|mine|yes|no|yeah|nope|lol|haha|wow|call|remember)\b",
)  # fmt: skip
VERB = any_of(
    r"\b(?:is|are|was|were|am|'s|'m|'re|'ve|has|have|had|makes?|made|loves?|likes?|hates?|lives?|rained|snowed|"
    r"went|go|goes|bought|got|won|lost|read|said|feels?|felt|think|works?|worked|takes?|took|starts?|upgraded|"
    r"weighs?|broke|moved|saw|visited|want|need|know|just|rose|fell|me)\b",
)  # fmt: skip
# A question about what is so now.
NOW = any_of(
    r"\b(?:today|tonight|tomorrow|yesterday|right now|at the moment|at present|currently|nowadays|these days|"
    r"last night|(?:this|next|last|past) (?:week|weekend|month|year|season|monday|tuesday|wednesday|thursday|"
    r"friday|saturday|sunday)|latest|newest|most recent|recent(?:ly)?|up-to-date|as of|so far this)\b",
)  # fmt: skip
# What sounds like it and is not: physics, fiction, hypotheses, advice.
NOT_NOW = any_of(
    r"\b(?:ohms?|volts?|voltage|amps?|amperes?|resistors?|resistance|circuit|(?:electric|alternating|direct|"
    r"ocean|river) currents?|currents)\b",
    r"\b(?:in|of|from) (?:the |a |this )?(?:novel|movie|film|book|story|poem|play)\b", r"\bcharacters?\b",
    r"\bat the end\b", r"\bif you\b", r"\byou would\b", r"\bwhat (?:should|could|can|shall|would) (?:i|we)\b",
    r"\bdifference between\b", r"\b(?:jupiter|mars|saturn|venus|mercury|neptune|uranus|romans?|ancient|medieval)\b",
)  # fmt: skip
# Settled knowledge, unless a topic below says otherwise.
KNOWN = any_of(
    r"^what (?:is|are|'s) (?:an?|the (?:law|role|definition|purpose|difference|meaning|concept)) ",
    r"^what(?:'s| is| are) (?:an? )?[a-z]+\W*$", r"^how (?:do|does|did|can|could|should|would)\b",
    r"^how (?:is|are) .*\b(?:works?|form|formed|form(?:s|ed)|determined|calculated|elected|made|replicate|move)\b",
    r"^what (?:does|do|makes|did) an? ",
    r"^how (?:tall|high|deep|far|big|many (?:legs|days|seconds|hours|continents|planets|bones))\b(?!.*\b(?:now|"
    r"today|moment)\b)",
    r"^(?:why|define|explain)\b", r"\bcauses?\b", r"\ba president's\b", r"\bfirst president\b", r"^which is\b",
)  # fmt: skip
# Orders to search; `what` is for what.
COMMAND = any_of(
    r"^(?:(?:can|could|would|will) you (?:please )?|please |i(?:'d like| want) you to |go |try to )*(?:(?:do |"
    r"run |make )?(?:a |an )?(?:web|internet|online|google) search(?: for| on| about|:)?|"
    r"search(?: (?:on )?(?:the )?(?:web|internet|online|net|google))?(?: (?:for|about)|:)?|search up|"
    r"look up(?: online)?|look (?:on|in) the (?:web|internet) (?:for)?|google|(?:find|"
    r"check)(?: out)? (?:information )?(?:online|on the (?:web|internet))(?: about| for)?)[\s:]+(?P<what>.+)$",
)  # fmt: skip
LOOK_UP = any_of(
    r"^(?:(?:can|could|would|will) you (?:please )?|please )*look (?P<what>.{2,60}?) up\b(?: online| please|"
    r" for me|[.!?]|$)",
)  # fmt: skip
# A turn that only names another thing, place or time.
FOLLOW = any_of(
    r"^(?:(?:ok|okay|hmm|oh|great|thanks|nice)[,.! ]+)?(?:and what about|and how about|what about|how about|"
    r"same for|and|or)\s+(?P<prep>in |for |of |at |on |to )?(?:the )?(?P<what>[^?!.,]{2,40})[?.!]*$",
)  # fmt: skip
DATE_WORDS = any_of(
    r"^(?:today|tonight|tomorrow|yesterday|now|(?:this|next|last) \w+|(?:on )?(?:mon|tues|wednes|thurs|fri|"
    r"satur|sun)day)$",
)  # fmt: skip
# "it" and "there" that stand for nothing.
EMPTY_IT = any_of(
    r"\b(?:is|was|will|does|did|can) it (?:going to |be |currently |still )*(?:rain|snow|cold|hot|warm|sunny|"
    r"windy|humid|cloudy|dark|raining|snowing|worth|true|possible|safe|legal|ok)\w*",
    r"\btime is it\b", r"\bit's? (?:rain|snow|cold|hot)\w*", r"\b(?:is|are|was|were|has|have|had|will) there\b",
    r"\bthere(?:'s| is| are| was)\b",
)  # fmt: skip
# Words that count from today, and those of which the month makes a query sharper.
DATES = any_of(
    r"\b(today(?:'s)?|tonight|tomorrow|yesterday|last night|this morning|this evening|(?:this|next|"
    r"last) (?:year|month|week|weekend)|right now|at the moment|at present|currently|these days)\b",
)  # fmt: skip
UNDATED = any_of(
    r"\b(?:latest|newest|most recent|recent|recently|current|now|news|currently|these days|nowadays|season)\b",
)  # fmt: skip
TOPIC_WORDS = frozenset(
    re.findall(
        r"\S+",
        "price prices of the a an in for at weather forecast stock share shares score scores news latest what "
        "is what's whats who how much who's population temperature today tomorrow yesterday now current version "
        "cost costs does rate exchange release",
    )
)

# What changes, by subject; the first that fits gives the decision its reason.
TOPICS: dict[str, re.Pattern[str]] = {
    "weather": any_of(
        r"\bweather\b", r"\bforecast\b",
        r"\b(?:will|is|does|going to) (?:it|there) (?:be |going to |going to be |have )?(?:rain|snow|cold|hot|"
        r"warm|sunny|windy|humid|cloudy|storm|freez|wet|dry|foggy|icy|a storm)\w*",
        r"\b(?:is|any) there (?:any )?(?:snow|rain|fog|ice|a storm)\b",
        r"\btemperature (?:in|at|outside|right now|today)\b", r"^how (?:hot|cold|warm|humid|windy) is\b",
        r"\b(?:need|take|bring) an umbrella\b", r"\bair quality\b", r"\bpollen\b", r"\buv index\b", r"\bhurricane\b",
        r"\bhigh tide\b", r"\blow tide\b", r"\bmoon (?:in )?(?:phase|tonight)", r"\bphase is the moon",
        r"\bsun(?:rise|set) (?:in|today|tomorrow)\b", r"\bwill it be (?:cold|hot|warm|rain\w*)\b",
    ),
    "prices": any_of(
        r"\b(?:stocks?|shares?) (?:price|trading|at|worth|doing)\b", r"\bshare price\b", r"\bstock price\b",
        r"\b(?:their|its|\w+'s) (?:stock|shares?)\b", r"\bshares (?:worth|price)", r"\bs&p\b", r"\bnasdaq\b",
        r"\bdow jones\b", r"\bftse\b", r"\bbitcoin\b", r"\bethereum\b", r"\bdogecoin\b", r"\bexchange rate\b",
        r"\b\w+ to \w+ rate\b", r"\b(?:usd|eur|gbp|jpy|inr|yen|rupees?)\b",
        r"\b(?:mortgage|interest|inflation|unemployment|tax|birth|crime|poverty) rates? (?:in|for|of|right|now|"
        r"last|today|this)",
        r"\b(?:us|uk|eu|ecb|fed|german|current|mortgage) (?:\w+ )?rates?\b", r"\becb interest\b",
        r"\bprices? (?:of|for|per|in|today|now)\b", r"\w+ (?:\w+ )?prices?\W*$",
        r"\bhow much (?:do|does|is|are|would|for) (?:an? |the |one |their )?.*\b(?:cost|worth|stock|shares|"
        r"price|solana|one \w+|ticket|today|these days|now)\b",
        r"\bcheapest\b", r"\baverage (?:rent|petrol|price|salary|house)\b",
        r"\b(?:petrol|gas|gold|silver|oil|house) prices?\b", r"\bminimum wage\b", r"\bnet worth\b",
        r"\bmortgage rates?\b",
    ),
    "sports": any_of(
        r"\b(?:scores?|standings|league table|fixtures|points table|medal (?:table|count))\b(?! (?:is|was) settled)",
        r"\b(?:did|do|does|will|has|have) .{2,40}\b(?:win|won|lose|lost|beat|play|draw|qualify)\b(?! (?:for|"
        r"in)\b.*\b(?:movie|film)\b)",
        r"\bwho(?:'s| is| are)? (?:won|winning|leading|playing|plays)\b(?!.*\bworld war\b)",
        r"\bnext (?:race|match|game|olympics|world cup|grand prix|fight|f1)\b", r"\bworld record\b",
        r"\bwhere will the next\b", r"\bwhen (?:does|do|is|will) .* (?:play|playing|perform|fight|race|air|tour)\b",
        r"\b(?:plays?|drives?|playing) for\b", r"\bwho (?:hosts?|is hosting)\b", r"\bpoints do\b",
    ),
    "office": any_of(
        r"\b(?:who(?:'s| is| are| leads| runs| heads)|is .{2,30} still)\b.*\b(?:ceo|cto|cfo|president|"
        r"prime minister|chancellor|mayor|governor|king|queen|pope|secretary(?: general)?|minister|head of|"
        r"chair(?:man|woman|person)?|director of|leader of|manager of|coach of|speaker of|senator|ambassador|"
        r"owner of)\b",
        r"^(?:the )?(?:current )?(?:ceo|president|prime minister|chancellor|mayor|governor|king|queen|pope) of\b",
        r"^who (?:leads|runs|owns|heads) ",
        r"\b(?:richest|most popular|most followed|oldest living|tallest living|most valuable|most subscribed)\b",
        r"\bcurrent (?:job|role|position|team|ceo|president|holder|champion|owner)\b",
    ),
    "people": any_of(
        r"^how (?:many people|large is the population)", r"\bpopulation\b",
        r"\bhow old is (?!the (?:universe|earth|sun|moon))",
        r"\b(?:is|are) (?:\S+ ){1,4}(?:still )?(?:alive|dead|married|single|dating|retired|touring|on tour|"
        r"pregnant|sick|ill)\b",
        r"\bwho is .* (?:dating|married to|engaged to)\b",
        r"\bwhere (?:does|do|is|are) .* (?:live|living|work|working|staying)(?: now| these days| today)?\W*$",
        r"\bgdp\b", r"\bhow many (?:subscribers|followers|users|employees|customers|points)\b",
        r"\bwhat(?:'s| is| are) .* doing (?:now|these days|today)\b", r"\bwhich (?:club|team|party|company) does\b",
        r"\bis .* visiting\b",
    ),
    "releases": any_of(
        r"\b(?:latest|newest|current|most recent|stable|next) (?:\S+ ){0,3}(?:version|release|update|model|"
        r"edition|patch|lts)\b",
        r"\bwhat's new in\b", r"\bwhat is new in\b",
        r"\b(?:when|has|is|have|did) .*\b(?:come out|coming out|been released|released yet|be released|"
        r"launch(?:ing|ed)?|out yet|available yet)\b",
        r"\brelease date\b", r"\bis there a new\b", r"\bnext .* release\b",
    ),
    "news": any_of(
        r"\bnews\b(?! (?:article|anchor|story about))", r"\bheadlines\b",
        r"\b(?:what's|what is) (?:happening|going on|the latest)\b",
        r"^(?:give me )?(?:the )?latest (?:on|about|from|in)\b", r"\bupdates? (?:on|about)\b",
        r"\b(?:election|wildfires?|ceasefire|protests?|outage)\b", r"\brecalls? (?:of|on)\b",
        r"\bbeen (?:a recall|recalled)\b", r"\brecent (?:developments|research|events|studies|news)\b",
        r"\blatest\b.*\b(?:rules?|laws?|budget|results?|polls?)\b", r"\btrending\b", r"\bbox office\b",
        r"\bnumber one song\b", r"\bis .* (?:down|offline)(?: right now| today)?\W*$",
        r"\bdid (?:it|they|he|she) .* recently\b", r"\bdelayed\b", r"\bon strike\b",
    ),
    "places and times": any_of(
        r"\b(?:opening|business|visiting) hours\b", r"\bwhat time (?:does|do|is|will|did)\b",
        r"\b(?:is|are) .* (?:open|closed) (?:now|today|tomorrow|on|tonight)\b", r"\bopen (?:now|today)\b",
        r"\bnear me\b", r"\bnear(?:est)?\b.*\b(?:station|restaurant|hotel|pharmacy|shop|bar|cafe)\b",
        r"\b(?:flights?|ferry|ferries|tickets?|hotels?|concerts?|restaurants?|jobs) (?:from|to|in|near|schedule|"
        r"at|timetable|\w+ to)\b",
        r"\b(?:trains?|bus|buses) (?:from|to|schedule|timetable)\b",
        r"\bnext (?:bus|train|flight|ferry|tram|launch|spacex)\b", r"\b(?:best|good|top|cheap) .*\b(?:in|near) [a-z]",
        r"\btraffic\b", r"\b(?:last|first) (?:train|bus|ferry)\b", r"\bschedule\b", r"\btimetable\b",
        r"\bdo .* need a visa\b", r"\bvisa (?:for|requirements)\b", r"\bdeadline\b",
        r"^(?:when|what day) (?:is|does|will|are) (?:easter|ramadan|thanksgiving|diwali|eid|hanukkah|lent|"
        r"black friday|the next)\b",
    ),
}  # fmt: skip
